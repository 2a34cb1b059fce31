//! A client as a member of groups of shared subscriptions.

use std::sync::Arc;

use crate::codec::packet::Packet;
use crate::codec::qos::QoS;
use crate::codec::reason::ReasonCode;
use crate::codec::text::Text;
use crate::codec::topic::shared_parts;
use crate::deliver::Parcel;
use crate::group_run;
use crate::headers::is_expired;
use crate::session::Session;
use crate::shared::{Flight, Group, Handed, Handout};
use crate::window::Stage;

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
        for flight in group.take_flights(&self.client.id) {
            self.take_up(&group, number, flight);
        }
    }

    /// Goes on with a QoS 2 message that an earlier connection of the session was sent.
    fn take_up(&mut self, group: &Arc<Group>, number: u32, flight: Flight) {
        let Flight { offset, id, stage, message, .. } = flight;
        let Some(memberships) = &mut self.memberships else { return };
        let source = memberships.handed(group, offset, &message, number);
        if stage == Stage::Released {
            self.window.put(id, Stage::Released, Some(source));
            return self.acknowledge(Packet::PubRel, id, ReasonCode::Success);
        }
        let Some(mut grant) = self.subscriptions.grant_of(&[number], false) else { return };
        grant.qos = QoS::ExactlyOnce;
        let retain = grant.retain_as_published && message.retain;
        self.deliver(Parcel { message: &message, grant, retain, source: Some(source), again: Some(id) });
    }

    /// Ends a shared subscription.
    pub fn leave_group(&mut self, text: &Text) {
        let Some(memberships) = &self.memberships else { return };
        if let Some(group) = memberships.group_of(text) {
            group.part(&self.client.id, &memberships.inbox);
            group.unsubscribe(&self.client.id);
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
        let source = offset.map(|offset| memberships.handed(&group, offset, &message, number));
        let retain = grant.retain_as_published && message.retain;
        self.deliver(Parcel { message: &message, grant, retain, source, again: None });
        // A group hands a member more as soon as it took something.
        group.bell.notify_one();
        true
    }

    /// The connection ends: what it was handed and did not finish goes back, but QoS 2, which waits for a session that stays.
    pub fn leave_groups(&mut self, session_stays: bool) {
        let Some(memberships) = self.memberships.take() else { return };
        for (source, id, stage) in self.window.shared() {
            let Some((group, message, number)) = memberships.find(&source) else { continue };
            match stage {
                Stage::Sent | Stage::Marking => group.take_back(Some(source.offset), message),
                _ if session_stays => {
                    let stage = if stage == Stage::SentOnce { stage } else { Stage::Released };
                    group.keep_flight(&self.client.id, Flight { offset: source.offset, id, stage, message, number });
                }
                // [MQTT-4.8.2-5]: to nobody else.
                _ => group.settle(source.offset),
            }
        }
        for group in memberships.groups() {
            group.part(&self.client.id, &memberships.inbox);
            if !session_stays {
                group.unsubscribe(&self.client.id);
            }
        }
    }
}
