//! What one client is subscribed to.

use std::collections::HashMap;

use bytes::{BufMut, Bytes, BytesMut};

use firth_model::filter::Filter;
use firth_model::ids::PartitionId;
use firth_model::limits::MQTT_SUBSCRIPTIONS_MAX;
use firth_model::spelling::Spelling;
use firth_model::subject::Subject;

use crate::codec::property::SubscriptionIdentifier;
use crate::codec::qos::QoS;
use crate::codec::subscribe::{RetainHandling, SubscriptionOptions};
use crate::codec::text::Text;
use crate::codec::topic::shared_parts;

#[derive(Debug, Clone)]
pub struct Subscribed {
    /// The topic filter as its client wrote it.
    pub text: Text,
    pub filter: Filter,
    /// Its messages come from a group.
    pub shared: bool,
    pub options: SubscriptionOptions,
    pub identifier: Option<SubscriptionIdentifier>,
    /// Where a persistent session keeps what it must not miss.
    pub leg: Option<PartitionId>,
    /// The note by which a persistent session keeps a subscription of QoS 0.
    pub note: Option<u32>,
}

/// The subscriptions of one client, by the number that live deliveries name and by topic filter. A number is not given again soon: what was
/// published before its subscription ended may still be on its way.
#[derive(Debug, Default)]
pub struct Subscriptions {
    slots: Vec<Slot>,
    by_text: HashMap<Text, u32>,
    /// The next numbers of slots that are free.
    free: Vec<u32>,
}

#[derive(Debug)]
struct Slot {
    number: u32,
    held: Option<Box<Subscribed>>,
}

/// The lower bits of a number are its slot's place, the others count how often that was used.
const PLACE_BITS: u32 = 17;
const _: () = assert!(MQTT_SUBSCRIPTIONS_MAX < 1 << PLACE_BITS);

fn place_of(number: u32) -> usize {
    (number & ((1 << PLACE_BITS) - 1)) as usize
}

/// How a message is to reach a client, of all its subscriptions that match.
#[derive(Debug, PartialEq, Eq)]
pub struct Grant {
    pub qos: QoS,
    pub identifiers: Vec<SubscriptionIdentifier>,
    pub retain_as_published: bool,
}

impl Default for Grant {
    fn default() -> Grant {
        Grant { qos: QoS::AtMostOnce, identifiers: Vec::new(), retain_as_published: false }
    }
}

impl Subscriptions {
    pub fn count(&self) -> usize {
        self.by_text.len()
    }

    pub fn number_of(&self, text: &Text) -> Option<u32> {
        self.by_text.get(text).copied()
    }

    pub fn get(&self, number: u32) -> Option<&Subscribed> {
        self.slots.get(place_of(number)).filter(|slot| slot.number == number)?.held.as_deref()
    }

    pub fn get_mut(&mut self, number: u32) -> Option<&mut Subscribed> {
        self.slots.get_mut(place_of(number)).filter(|slot| slot.number == number)?.held.as_deref_mut()
    }

    /// Adds a subscription, or puts it in the place of the one with its topic filter. Gives its number.
    pub fn put(&mut self, subscribed: Subscribed) -> u32 {
        let known = self.by_text.get(&subscribed.text).copied();
        let number = known.or_else(|| self.free.pop()).unwrap_or_else(|| {
            self.slots.push(Slot { number: 0, held: None });
            u32::try_from(self.slots.len() - 1).expect("a client has fewer subscriptions")
        });
        if known.is_none() {
            self.by_text.insert(subscribed.text.clone(), number);
        }
        self.slots[place_of(number)] = Slot { number, held: Some(Box::new(subscribed)) };
        number
    }

    pub fn remove(&mut self, number: u32) -> Option<Subscribed> {
        let held = self.slots.get_mut(place_of(number)).filter(|slot| slot.number == number)?.held.take()?;
        self.by_text.remove(&held.text);
        self.free.push(number.wrapping_add(1 << PLACE_BITS));
        Some(*held)
    }

    pub fn all(&self) -> impl Iterator<Item = (u32, &Subscribed)> {
        self.slots.iter().filter_map(|slot| Some((slot.number, slot.held.as_deref()?)))
    }

    /// How a live message arrives that matched these subscriptions; `own`: the client published it. `None`: it does not.
    pub fn grant_of(&self, numbers: &[u32], own: bool) -> Option<Grant> {
        grant(numbers.iter().filter_map(|number| self.get(*number)), own)
    }

    /// The same of every subscription that matches the subject.
    pub fn grant_for(&self, subject: &Subject, own: bool) -> Option<Grant> {
        grant(self.all().map(|(_, subscribed)| subscribed).filter(|one| !one.shared && one.filter.matches(subject)), own)
    }

    /// Whether one of them gets its guaranteed messages from a leg.
    pub fn has_leg(&self, numbers: &[u32]) -> bool {
        numbers.iter().any(|number| self.get(*number).is_some_and(|subscribed| subscribed.leg.is_some()))
    }

    /// Whether a publish of the client itself comes back by a leg to a subscription that does not want it.
    pub fn keeps_own_out(&self, subject: &Subject) -> bool {
        self.all().any(|(_, one)| one.options.no_local && one.options.qos != QoS::AtMostOnce && one.filter.matches(subject))
    }
}

fn grant<'a>(matching: impl Iterator<Item = &'a Subscribed>, own: bool) -> Option<Grant> {
    let mut grant: Option<Grant> = None;
    for Subscribed { options, identifier, .. } in matching {
        if own && options.no_local {
            continue;
        }
        let grant = grant.get_or_insert_default();
        grant.qos = grant.qos.max(options.qos);
        grant.identifiers.extend(*identifier);
        grant.retain_as_published |= options.retain_as_published;
    }
    grant
}

const NO_LOCAL: u8 = 0x04;
const RETAIN_AS_PUBLISHED: u8 = 0x08;
const RETAIN_HANDLING_SHIFT: u32 = 4;

impl Subscribed {
    /// `None`: the text is no filter of ours, by its depth or length.
    pub fn of(text: Text, options: SubscriptionOptions, identifier: Option<SubscriptionIdentifier>) -> Option<Subscribed> {
        let share = shared_parts(&text).ok()?.map(|(_, filter)| filter.as_bytes());
        let filter = Spelling::Mqtt.filter(share.unwrap_or(text.as_bytes())).ok()?;
        let shared = share.is_some();
        Some(Subscribed { text: text.detached(), filter, shared, options, identifier, leg: None, note: None })
    }

    /// What a persistent session keeps of it.
    ///
    /// ```text
    /// | options u8, as in SUBSCRIBE | subscription identifier u32, 0: none | topic filter |
    /// ```
    pub fn to_note(&self) -> Bytes {
        let SubscriptionOptions { qos, no_local, retain_as_published, retain_handling } = self.options;
        let handling = (retain_handling as u8) << RETAIN_HANDLING_SHIFT;
        let flags = if no_local { NO_LOCAL } else { 0 } | if retain_as_published { RETAIN_AS_PUBLISHED } else { 0 };
        let mut out = BytesMut::with_capacity(5 + self.text.as_bytes().len());
        out.put_u8(qos.number() | flags | handling);
        out.put_u32(self.identifier.map_or(0, SubscriptionIdentifier::get));
        out.put_slice(self.text.as_bytes());
        out.freeze()
    }

    pub fn from_note(note: &Bytes) -> Option<Subscribed> {
        let (options, rest) = note.split_first()?;
        let identifier = rest.first_chunk::<4>()?;
        let options = SubscriptionOptions {
            qos: QoS::from_number(options & 3)?,
            no_local: options & NO_LOCAL != 0,
            retain_as_published: options & RETAIN_AS_PUBLISHED != 0,
            retain_handling: match options >> RETAIN_HANDLING_SHIFT & 3 {
                0 => RetainHandling::Always,
                1 => RetainHandling::IfNew,
                _ => RetainHandling::Never,
            },
        };
        let text = Text::parse(Bytes::copy_from_slice(&note[5..])).ok()?;
        Subscribed::of(text, options, SubscriptionIdentifier::parse(u32::from_be_bytes(*identifier)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscribed(text: &'static str, qos: QoS, identifier: u32) -> Subscribed {
        let identifier = SubscriptionIdentifier::parse(identifier);
        Subscribed::of(Text::fixed(text), SubscriptionOptions::of(qos), identifier).expect("a filter")
    }

    #[test]
    fn notes_bring_subscriptions_back() {
        let mut one = subscribed("a/+/#", QoS::ExactlyOnce, 268_435_455);
        one.options = SubscriptionOptions { no_local: true, retain_handling: RetainHandling::Never, ..one.options };
        let back = Subscribed::from_note(&one.to_note()).expect("a note");
        assert_eq!((&back.text, &back.filter, back.options, back.identifier), (&one.text, &one.filter, one.options, one.identifier));
        assert!(Subscribed::from_note(&Bytes::from_static(b"\x02\0\0")).is_none());
    }

    #[test]
    fn overlapping_subscriptions_deliver_once_at_their_best() {
        let mut table = Subscriptions::default();
        let mut loud = subscribed("a/#", QoS::AtMostOnce, 3);
        loud.options.retain_as_published = true;
        let mut shy = subscribed("a/b", QoS::ExactlyOnce, 5);
        shy.options.no_local = true;
        let numbers = [table.put(loud), table.put(shy)];
        let both = Grant {
            qos: QoS::ExactlyOnce,
            identifiers: [3, 5].into_iter().filter_map(SubscriptionIdentifier::parse).collect(),
            retain_as_published: true,
        };
        assert_eq!(table.grant_of(&numbers, false), Some(both));
        let own = table.grant_for(&Subject::parse("a/b").expect("a subject"), true).expect("one is left");
        assert_eq!((own.qos, own.identifiers.len()), (QoS::AtMostOnce, 1));
        assert_eq!(table.put(subscribed("a/b", QoS::AtMostOnce, 0)), numbers[1], "in place");
        assert_eq!(table.grant_of(&[99], false), None);
    }
    /// What was on its way to a subscription that is over does not come by another one.
    #[test]
    fn numbers_are_not_given_again_soon() {
        let mut table = Subscriptions::default();
        let (first, other) = (table.put(subscribed("a", QoS::AtMostOnce, 1)), table.put(subscribed("b", QoS::AtMostOnce, 2)));
        let mut last = first;
        for _ in 0..100 {
            assert_eq!(table.remove(last).map(|one| one.text), Some(Text::fixed("a")));
            assert!(table.remove(last).is_none() && table.get(last).is_none());
            last = table.put(subscribed("a", QoS::AtMostOnce, 3));
            assert_eq!((table.number_of(&Text::fixed("a")), table.count(), table.slots.len()), (Some(last), 2, 2));
            assert_eq!(table.grant_of(&[first], false), None);
        }
        let numbers: Vec<u32> = table.all().map(|(number, _)| number).collect();
        assert_eq!(numbers, [last, other]);
    }
}
