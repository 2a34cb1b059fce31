//! A client as a member of groups of shared subscriptions.

use firth_gateway::cursors::CursorMove;

use crate::codec::qos::QoS;
use crate::codec::text::Text;
use crate::codec::topic::shared_parts;
use crate::deliver::Parcel;
use crate::flights::{Flight, Step};
use crate::group_run;
use crate::headers::{is_expired, published_qos};
use crate::held::settle_of;
use crate::session::{Asked, Session};
use crate::shared::{Handed, Handout};
use crate::window::{Origin, Source, Stage};

/// The `at` of a subscription that no SUBSCRIBE waits for.
pub const RESUMED: usize = usize::MAX;

impl Session {
    /// Joins the group of a shared subscription; `joined` follows.
    pub fn join(&mut self, text: &Text, number: u32, at: usize) {
        let (Ok(Some((share, _))), Some(subscribed)) = (shared_parts(text), self.subscriptions.get(number)) else { return };
        let (group, fresh) = self.node.groups.enter(text, share, &subscribed.filter, &self.client.id);
        if fresh {
            tokio::spawn(group_run::run(self.node.clone(), self.broker.clone(), group.clone()));
        }
        let memberships = self.memberships.get_or_insert_default();
        memberships.add(&group);
        group.join(&self.client.id, number, at, &memberships.inbox);
        group.take_flights(&self.client.id);
    }

    /// Ends a shared subscription.
    pub fn leave_group(&mut self, text: &Text) {
        let Some(memberships) = &self.memberships else { return };
        if let Some(group) = memberships.group_of(text) {
            group.part(&self.client.id, &memberships.inbox);
            let flights = self.durable.as_ref().map(|durable| durable.flights.of_share(text)).unwrap_or_default();
            group.unsubscribe(&self.client.id, &flights);
            // What the group took back made room for others.
            memberships.call_groups();
        }
    }

    /// What groups said to subscriptions that wait for them.
    pub fn hear_groups(&mut self) {
        let Some(memberships) = &self.memberships else { return };
        for (at, number, result) in memberships.inbox.take_joined() {
            match result {
                _ if at == RESUMED => {}
                Ok(_) => self.step_done(),
                Err(refusal) => self.step_refused(at, number, &refusal),
            }
        }
        // What they said took room too.
        self.memberships.iter().for_each(|memberships| memberships.call_groups());
    }

    /// Sends what a group handed over. False: there is nothing, or no room.
    pub fn deliver_handed(&mut self) -> bool {
        let Some(memberships) = &mut self.memberships else { return false };
        if !self.window.has_room() {
            return false;
        }
        let Some(handout) = memberships.inbox.pop() else { return false };
        let Handout::Message(Handed { group, number, message, offset }) = handout else {
            memberships.inbox.put_back(handout);
            return false;
        };
        memberships.call_groups();
        let mine = self.subscriptions.get(number).is_some_and(|subscribed| subscribed.text == group.text);
        let grant = if mine { self.subscriptions.grant_of(&[number], false) } else { None };
        let Some(grant) = grant else {
            group.take_back(offset, message);
            return true;
        };
        if is_expired(&message, self.now) {
            offset.into_iter().for_each(|offset| group.settle(offset));
            return true;
        }
        let retain = grant.retain_as_published && message.retain;
        let mut source = offset.map(|offset| memberships.handed(&group, offset, &message));
        let exactly_once = grant.qos.min(published_qos(&message)) == QoS::ExactlyOnce;
        if let (Some(durable), Some(record)) = (&mut self.durable, source.as_mut().filter(|_| exactly_once)) {
            let Some((_, partition)) = group.place() else {
                memberships.forget(&group, record.offset);
                group.take_back(offset, message);
                return true;
            };
            let (identifier, share, offset) = (grant.identifiers.first().copied(), group.text.clone(), record.offset);
            let slot = durable.flights.begin(Flight { step: Step::SentOnce, id: None, identifier, retain, partition, offset, share });
            *record = Source { partition, offset, origin: Origin::Noted(slot) };
        }
        self.deliver(Parcel { message: &message, grant, retain, source, again: None });
        true
    }

    /// The connection ends: what it was handed and did not finish goes back, but QoS 2, which waits for a session that stays.
    pub fn leave_groups(&mut self, session_stays: bool) {
        let Some(memberships) = self.memberships.take() else { return };
        for (source, _, stage) in self.window.shared() {
            let Some((group, message)) = memberships.find(&source) else { continue };
            match stage {
                Stage::Sent | Stage::Marking => group.take_back(Some(source.offset), message),
                // [MQTT-4.8.2-5]: to nobody else.
                _ => group.settle(source.offset),
            }
        }
        let flights = self.durable.as_ref().map(|durable| durable.flights.all()).unwrap_or_default();
        for (_, Flight { id, share, partition, offset, .. }) in flights {
            let Some(group) = memberships.group_of(&share) else { continue };
            let stage = id.and_then(|id| self.window.get(id)).map(|flight| flight.stage);
            match memberships.message(&group, offset).filter(|_| stage == Some(Stage::Marking)) {
                _ if session_stays => group.keep_flight(&self.client.id, (partition, offset)),
                Some(unsent) => group.take_back(Some(offset), unsent),
                None => group.settle(offset),
            }
        }
        for group in memberships.groups() {
            group.part(&self.client.id, &memberships.inbox);
            if !session_stays {
                group.unsubscribe(&self.client.id, &[]);
            }
        }
    }

    /// The session ends: so does what it has in flight of groups that it is not in any more.
    pub fn end_left_flights(&mut self) {
        let flights = self.durable.as_ref().map(|durable| durable.flights.all()).unwrap_or_default();
        for (_, Flight { share, partition, offset, .. }) in flights {
            let is_in = self.memberships.as_ref().is_some_and(|memberships| memberships.group_of(&share).is_some());
            if let Some(settle) = settle_of(&share, &[(partition, offset)]).filter(|_| !is_in) {
                self.ask_cursor(settle, Some(Asked::Aside));
            }
        }
    }

    /// Writes what changed of messages in flight that lie in no leg. What groups are told goes before: a message that the session forgot
    /// must not be handed to anybody again.
    pub fn flush_flights(&mut self) {
        let Some(durable) = self.durable.as_mut().filter(|durable| !durable.flights.is_quiet()) else { return };
        let mut settles = Vec::new();
        for slot in durable.flights.take_finished() {
            let Some(Flight { share, partition, offset, .. }) = durable.flights.get(slot).cloned() else { continue };
            if let Some(member) = &mut self.memberships
                && let Some(group) = member.group_of(&share)
            {
                member.forget(&group, offset);
            }
            if let Some(group) = self.node.groups.find(&share) {
                group.landed(offset);
            }
            settles.extend(settle_of(&share, &[(partition, offset)]));
            durable.flights.forget(slot);
        }
        let own = durable.attachment;
        let (notes, noting) = durable.flights.flush();
        for settle in settles {
            self.ask_cursor(settle, Some(Asked::Aside));
        }
        if !notes.is_empty() {
            let asked = (!noting.is_empty()).then_some(Asked::Marked(noting));
            self.ask_cursor(CursorMove::Note { attachment: own, notes }, asked);
        }
    }
}
