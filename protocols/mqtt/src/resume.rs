//! A session that goes on where an earlier connection left it.

use std::collections::VecDeque;

use firth_gateway::cursors::{Attached, Leg};
use firth_model::ids::Offset;

use crate::codec::packet::Packet;
use crate::codec::qos::PacketId;
use crate::codec::reason::ReasonCode;
use crate::flights::{Flight, Replaying, Step};
use crate::inbound::Incoming;
use crate::legs::Handed;
use crate::notes::{CLOSING_NOTE, NOTE_FLIGHT, NOTE_INCOMING, NOTE_KIND, NOTE_REPLAY, NOTE_SUBSCRIPTION};
use crate::replay::StoredAt;
use crate::session::{Durable, Session};
use crate::shares::RESUMED;
use crate::subscriptions::Subscribed;
use crate::window::{Origin, Source, Stage};

/// A QoS 1 message waits for PUBACK: marked when its connection ended.
pub const WAITS_FOR_PUBACK: u8 = 0;
/// A QoS 2 message waits for PUBREC.
const WAITS_FOR_PUBREC: u8 = 1;

impl Session {
    /// Takes up what the session's cursor remembers: subscriptions, incoming identifiers, messages in flight. PUBRELs go out again at once,
    /// in the order of their messages; the rest is read again by the legs.
    pub fn resume(&mut self, attached: Attached) {
        let mut durable = Durable::attached(attached.attachment);
        let (mut releases, interrupted) = (Vec::new(), attached.is_interrupted());
        for leg in &attached.legs {
            durable.legs.add(leg);
            if interrupted && let Some(bounds) = self.broker.view().bounds(leg.partition) {
                durable.doubtful.insert(leg.partition, bounds.durable_end.min(sent_up_to(leg, self.node.settings.in_flight_max)));
            }
            if leg.note == CLOSING_NOTE {
                durable.legs.set_closing(leg.partition, true);
                durable.closing.insert(leg.partition, leg.filter.clone());
            } else if let Some(mut subscribed) = Subscribed::from_note(&leg.note) {
                subscribed.leg = Some(leg.partition);
                self.subscribe_again(subscribed);
            }
            self.take_up_marks(&mut durable, leg, &mut releases);
        }
        for (number, note) in &attached.notes {
            match number & NOTE_KIND {
                NOTE_INCOMING => {
                    if let Some(id) = u16::try_from(number & !NOTE_KIND).ok().and_then(PacketId::new) {
                        self.inbound.known.insert(id, Incoming::Received);
                    }
                }
                NOTE_SUBSCRIPTION => {
                    durable.notes.insert(*number);
                    if let Some(mut subscribed) = Subscribed::from_note(note) {
                        subscribed.note = Some(*number);
                        self.subscribe_again(subscribed);
                    }
                }
                NOTE_FLIGHT | NOTE_REPLAY => durable.flights.restore(*number, note),
                _ => {}
            }
        }
        self.take_up_flights(&mut durable, interrupted, &mut releases);
        self.durable = Some(Box::new(durable));
        for id in releases {
            self.acknowledge(Packet::PubRel, id, ReasonCode::Success);
        }
        let shared = self.subscriptions.all().filter(|(_, subscribed)| subscribed.shared);
        for (number, text) in shared.map(|(number, subscribed)| (number, subscribed.text.clone())).collect::<Vec<_>>() {
            self.join(&text, number, RESUMED);
        }
    }

    /// What the records of one leg were handed out as; `releases` are those whose PUBREL has to go out.
    fn take_up_marks(&mut self, durable: &mut Durable, leg: &Leg, releases: &mut Vec<PacketId>) {
        for mark in &leg.marks {
            let Some(id) = u16::try_from(mark.tag).ok().and_then(PacketId::new) else { continue };
            let source = Source { partition: leg.partition, offset: mark.offset, origin: Origin::Leg };
            let handed = match mark.stage {
                WAITS_FOR_PUBACK => Handed::Once(id.get()),
                WAITS_FOR_PUBREC => Handed::Marked(id.get()),
                _ => Handed::Received(id.get()),
            };
            if let Handed::Received(_) = handed {
                self.window.put(id, Stage::Released, Some(source));
                releases.push(id);
            } else {
                self.window.reserve(id);
            }
            durable.handed.before.insert(source, handed);
        }
    }

    /// Goes on with messages in flight that lie in no leg, and with what new subscriptions were still to be sent.
    fn take_up_flights(&mut self, durable: &mut Durable, interrupted: bool, releases: &mut Vec<PacketId>) {
        let mut again = VecDeque::new();
        for (slot, Flight { step, id, partition, offset, .. }) in durable.flights.all() {
            let Some(id) = id else { continue };
            if step == Step::Received {
                let source = Source { partition, offset, origin: Origin::Noted(slot) };
                self.window.put(id, Stage::Released, Some(source));
                releases.push(id);
            } else {
                self.window.reserve(id);
                again.push_back(StoredAt { slot, partition, offset });
            }
        }
        if !again.is_empty() {
            self.replays.add_again(again);
        }
        for (slot, Replaying { next, end, text }) in durable.flights.replays() {
            let subscribed = self.subscriptions.number_of(&text).and_then(|number| Some((number, self.subscriptions.get(number)?)));
            let stored = subscribed.and_then(|(number, one)| Some((number, self.broker.view().retained(&one.filter)?)));
            let Some((number, (partition, mut offsets))) = stored else {
                durable.end_replay(slot);
                continue;
            };
            if interrupted {
                let doubtful = durable.doubtful.entry(partition).or_default();
                *doubtful = end.max(*doubtful);
            }
            let flying = durable.flights.offsets_of(partition);
            offsets.retain(|offset| (next..end).contains(offset) && !flying.contains(offset));
            offsets.sort_unstable();
            self.replays.add(number, partition, offsets, Some(slot));
        }
    }

    fn subscribe_again(&mut self, subscribed: Subscribed) {
        let (filter, shared) = (subscribed.filter.clone(), subscribed.shared);
        let number = self.subscriptions.put(subscribed);
        if !shared {
            self.connection.subscribe(number, filter, self.node.settings.live_overflow);
        }
    }
}

/// The offset behind the first so many records of a leg that are not settled: an earlier connection had no more of them in flight.
fn sent_up_to(leg: &Leg, in_flight_max: u16) -> Offset {
    let (mut at, mut left) = (leg.floor.0, u64::from(in_flight_max));
    for (from, to) in &leg.settled {
        let gap = from.0.saturating_sub(at);
        if gap >= left {
            break;
        }
        left -= gap;
        at = to.0;
    }
    Offset(at + left)
}

#[cfg(test)]
mod tests {
    use super::*;

    use bytes::Bytes;
    use firth_model::filter::Filter;
    use firth_model::ids::{PartitionId, Position};

    #[test]
    fn what_is_settled_behind_a_slow_message_was_in_flight_before() {
        let leg = |settled: &[(u64, u64)]| Leg {
            filter: Filter::parse("a").expect("a filter"),
            note: Bytes::new(),
            partition: PartitionId(1),
            bound_at: Position(0),
            floor: Offset(10),
            settled: settled.iter().map(|(from, to)| (Offset(*from), Offset(*to))).collect(),
            marks: Vec::new(),
            attempts: Vec::new(),
        };
        assert_eq!(sent_up_to(&leg(&[]), 5), Offset(15));
        assert_eq!(sent_up_to(&leg(&[(11, 1000)]), 5), Offset(1004), "one below, four above");
        assert_eq!(sent_up_to(&leg(&[(11, 20), (22, 30), (40, 50)]), 5), Offset(32));
        assert_eq!(sent_up_to(&leg(&[(15, 20)]), 5), Offset(15));
    }
}
