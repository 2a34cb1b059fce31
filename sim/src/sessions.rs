//! Clients with queue cursors: what they must get back after any crash.
//!
//! A session binds filters, reads its legs, settles and marks; one publisher leaves a receipt with every message and sends again what was
//! not answered. Checked whenever a session attaches: what was acknowledged under a bound filter is there until it was settled or lost to a
//! limit, each once; what was settled before something that was acknowledged does not come again; marks are as they were, attempts no
//! fewer. Checked in every turn: what is lost to limits is counted, and no more than that is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use firth_gateway::answer::{Answer, Event, Stored, Tag};
use firth_gateway::cursors::{Attached, Attachment, CursorAnswer, CursorMove, Keep, Leg, Receipt, Settle, Settlement};
use firth_gateway::live::Routes;
use firth_gateway::refusal::Refusal;
use firth_gateway::request::{Request, Store};
use firth_gateway::stored;
use firth_gateway::view::LogView;
use firth_model::filter::Filter;
use firth_model::ids::{Offset, PartitionId};
use firth_model::subject::Subject;

use crate::bound::Bound;
use crate::losses::{Settled, Since};
use crate::machine::Machine;
use crate::messages::plain;
use crate::reading::unsettled;
use crate::world::World;

const SUBJECTS: [&str; 3] = ["a/b", "a/c", "b/x"];
const FILTERS: [&str; 3] = ["a/>", "a/b", "#"];
const SESSIONS: usize = 3;
/// The session that publishes.
const PUBLISHER: usize = SESSIONS;
/// The session that does not outlive its attachment for long.
pub const BRIEF: usize = 0;
const BRIEF_MS: u64 = 2_000;

#[derive(Default)]
struct Session {
    attachment: Option<Attachment>,
    known: bool,
    legs: BTreeMap<usize, Bound>,
    /// Legs were given up by a request with this tag: what an earlier bind brings is not counted on.
    given_up: u64,
    /// What its legs lost to limits in this life, also before it heard that they are bound.
    lost: BTreeSet<(PartitionId, u64)>,
}

enum Asked {
    Attach {
        who: usize,
        fresh: bool,
    },
    Detach,
    Bind(usize, usize),
    Unbind(usize, usize),
    Done {
        who: usize,
        filter: usize,
        ids: Vec<u64>,
        partition: PartitionId,
        offsets: Vec<u64>,
    },
    HandedOut {
        who: usize,
        filter: usize,
        offset: u64,
    },
    Mark {
        who: usize,
        filter: usize,
        id: u64,
        offset: u64,
        tag: u32,
    },
    Store(Vec<u64>),
    Forget,
    /// Of a cursor that must be gone.
    Ended,
}

pub struct Sessions {
    sessions: Vec<Session>,
    /// Subject of each message, by id.
    sent: Vec<usize>,
    open: BTreeSet<u64>,
    acknowledged: BTreeSet<u64>,
    /// Acknowledged, and their receipts are still there.
    receipts: BTreeSet<u64>,
    asked: BTreeMap<u64, Asked>,
    next_tag: u64,
    routes: BTreeMap<usize, Arc<Routes>>,
    /// Legs that were checked, for tests of the test.
    pub checked: usize,
    pub delivered: usize,
    pub counted: usize,
    pub lost: u64,
}

fn filter(at: usize) -> Filter {
    Filter::parse(FILTERS[at]).expect("a filter")
}

fn subject(at: usize) -> Subject {
    Subject::parse(SUBJECTS[at]).expect("a subject")
}

impl Sessions {
    pub fn fresh() -> Sessions {
        Sessions {
            sessions: (0..=SESSIONS).map(|_| Session::default()).collect(),
            sent: Vec::new(),
            open: BTreeSet::new(),
            acknowledged: BTreeSet::new(),
            receipts: BTreeSet::new(),
            asked: BTreeMap::new(),
            next_tag: 0,
            routes: BTreeMap::new(),
            checked: 0,
            delivered: 0,
            counted: 0,
            lost: 0,
        }
    }

    pub fn acknowledged(&self) -> usize {
        self.acknowledged.len()
    }

    fn ask(&mut self, world: &mut World, asked: Asked, request: Request) -> u64 {
        let tag = self.next_tag;
        self.next_tag += 1;
        self.asked.insert(tag, asked);
        world.submit(Tag(tag), request);
        tag
    }

    fn cursor(&mut self, world: &mut World, asked: Asked, ask: CursorMove) -> u64 {
        self.ask(world, asked, Request::Cursor(Box::new(ask)))
    }

    /// After a restart: nobody is attached, and what was asked may have happened or not.
    pub fn adopt(&mut self) {
        self.asked.clear();
        self.routes.clear();
        self.sessions.iter_mut().flat_map(|session| session.legs.values_mut()).for_each(Bound::crashed);
        for session in &mut self.sessions {
            session.attachment = None;
            session.lost.clear();
        }
    }

    pub fn attach_all(&mut self, world: &mut World) {
        (0..=SESSIONS).for_each(|who| self.attach(world, who, false));
    }

    fn name(who: usize) -> Bytes {
        Bytes::from(format!("session {who}"))
    }

    fn attach(&mut self, world: &mut World, who: usize, fresh: bool) {
        if fresh {
            self.sessions[who].legs.clear();
            self.sessions[who].given_up = self.next_tag;
        }
        let keep = if who == BRIEF { Keep::For(BRIEF_MS) } else { Keep::Ever };
        self.cursor(world, Asked::Attach { who, fresh }, CursorMove::Attach { name: Sessions::name(who), fresh, keep });
    }

    /// One action, picked by the dice.
    pub fn act(&mut self, world: &mut World, machine: &mut Machine) {
        let who = machine.dice.below(SESSIONS as u64) as usize;
        let at = machine.dice.below(FILTERS.len() as u64) as usize;
        match machine.dice.below(44) {
            0 => self.attach(world, who, machine.dice.below(4) == 0),
            1 => self.attach(world, PUBLISHER, false),
            2 => self.detach(world, who),
            3..=6 => self.bind(world, who, at),
            7 => self.unbind(world, who, at),
            8..=18 => self.settle(world, machine, who, at),
            19..=22 => self.mark(world, machine, who, at),
            23 => self.forget_receipts(world),
            24 => self.resend(world, machine),
            25..=28 => self.hand_out(world, machine, who, at),
            _ => self.publish(world, machine),
        }
    }

    pub fn detach(&mut self, world: &mut World, who: usize) {
        let Some(attachment) = self.sessions[who].attachment.take() else { return };
        if who == BRIEF {
            // It may end from now on.
            self.sessions[who].legs.clear();
            self.sessions[who].known = false;
            self.sessions[who].given_up = self.next_tag;
        }
        self.cursor(world, Asked::Detach, CursorMove::Detach { attachment, keep: None });
    }

    /// The brief session was detached for longer than it is kept: it must be gone.
    pub fn drop_brief(&mut self, world: &mut World) {
        self.cursor(world, Asked::Ended, CursorMove::Drop { name: Sessions::name(BRIEF) });
    }

    fn bind(&mut self, world: &mut World, who: usize, at: usize) {
        let Some(attachment) = self.sessions[who].attachment else { return };
        self.cursor(world, Asked::Bind(who, at), CursorMove::Bind { attachment, filter: filter(at), note: Bytes::from_static(b"qos") });
    }

    fn unbind(&mut self, world: &mut World, who: usize, at: usize) {
        let Some(attachment) = self.sessions[who].attachment else { return };
        if self.sessions[who].legs.remove(&at).is_some() {
            self.sessions[who].given_up = self.next_tag;
            self.cursor(world, Asked::Unbind(who, at), CursorMove::Unbind { attachment, filter: filter(at) });
        }
    }

    /// Some of what the leg has: by one settlement a run, in no order.
    fn settle(&mut self, world: &mut World, machine: &mut Machine, who: usize, at: usize) {
        let Some((attachment, leg)) = self.leg(who, at) else { return };
        let bound = &self.sessions[who].legs[&at];
        let all = machine.dice.below(5) == 0;
        let unsettled = unsettled(world, &leg, &bound.passed);
        let picked: Vec<(u64, u64)> = unsettled.into_iter().filter(|_| all || machine.dice.below(3) == 0).collect();
        if picked.is_empty() {
            return;
        }
        let one = |offset: u64| Settlement::Done { from: Offset(offset), to: Offset(offset + 1) };
        let settles = picked.iter().map(|(_, offset)| Settle { partition: leg.partition, what: one(*offset) }).collect();
        let ids: Vec<u64> = picked.iter().map(|(id, _)| *id).collect();
        self.delivered += ids.len();
        let offsets = picked.iter().map(|(_, offset)| *offset).collect();
        let asked = Asked::Done { who, filter: at, ids, partition: leg.partition, offsets };
        let tag = self.cursor(world, asked, CursorMove::Settle { attachment, settles });
        let bound = self.sessions[who].legs.get_mut(&at).expect("looked at above");
        for (id, offset) in picked {
            bound.asked.insert(id, tag);
            bound.passed.insert(offset..offset + 1);
            bound.marks.remove(&offset);
        }
    }

    fn mark(&mut self, world: &mut World, machine: &mut Machine, who: usize, at: usize) {
        let Some((attachment, leg)) = self.leg(who, at) else { return };
        let unsettled = unsettled(world, &leg, &self.sessions[who].legs[&at].passed);
        let Some((id, offset)) = unsettled.get(machine.dice.below(1 + unsettled.len() as u64) as usize).copied() else { return };
        let tag = machine.dice.below(65_535) as u32;
        self.sessions[who].legs.get_mut(&at).expect("looked at above").marks.remove(&offset);
        let what = Settlement::Mark { offset: Offset(offset), tag, stage: 1 };
        let settles = vec![Settle { partition: leg.partition, what }];
        self.cursor(world, Asked::Mark { who, filter: at, id, offset, tag }, CursorMove::Settle { attachment, settles });
    }

    fn hand_out(&mut self, world: &mut World, machine: &mut Machine, who: usize, at: usize) {
        let Some((attachment, leg)) = self.leg(who, at) else { return };
        let unsettled = unsettled(world, &leg, &self.sessions[who].legs[&at].passed);
        let Some((_, offset)) = unsettled.get(machine.dice.below(1 + unsettled.len() as u64) as usize).copied() else { return };
        let settles = vec![Settle { partition: leg.partition, what: Settlement::HandedOut { offset: Offset(offset) } }];
        let tag = self.cursor(world, Asked::HandedOut { who, filter: at, offset }, CursorMove::Settle { attachment, settles });
        self.sessions[who].legs.get_mut(&at).expect("looked at above").attempts.asked(offset, tag);
    }

    fn leg(&self, who: usize, at: usize) -> Option<(Attachment, Leg)> {
        let session = &self.sessions[who];
        Some((session.attachment?, session.legs.get(&at)?.leg.clone()?))
    }

    fn publish(&mut self, world: &mut World, machine: &mut Machine) {
        if self.sessions[PUBLISHER].attachment.is_none() || self.open.len() > 20 {
            return;
        }
        let ids: Vec<u64> = (0..=machine.dice.below(3)).map(|at| self.sent.len() as u64 + at).collect();
        for id in &ids {
            self.sent.push(machine.dice.below(SUBJECTS.len() as u64) as usize);
            self.open.insert(*id);
        }
        self.send(world, machine, ids);
    }

    /// What was not answered in an earlier life, or what was and is sent again all the same.
    fn resend(&mut self, world: &mut World, machine: &mut Machine) {
        let in_flight: BTreeSet<u64> =
            self.asked.values().flat_map(|asked| if let Asked::Store(ids) = asked { &ids[..] } else { &[] }).copied().collect();
        let ids: Vec<u64> = self.open.difference(&in_flight).copied().collect();
        let ids = if ids.is_empty() { self.receipts.difference(&in_flight).take(2).copied().collect() } else { ids };
        if !ids.is_empty() && self.sessions[PUBLISHER].attachment.is_some() {
            self.send(world, machine, ids);
        }
    }

    fn send(&mut self, world: &mut World, machine: &mut Machine, ids: Vec<u64>) {
        let Some(attachment) = self.sessions[PUBLISHER].attachment else { return };
        let mut stores = Vec::new();
        for id in &ids {
            let at = self.sent[*id as usize];
            let subject = subject(at);
            // Often by routes that are old.
            if machine.dice.below(3) == 0 || !self.routes.contains_key(&at) {
                let routing = &world.view.routing;
                let routes = Routes { version: routing.version(&subject), live: Vec::new(), captures: routing.captures(&subject) };
                self.routes.insert(at, Arc::new(routes));
            }
            let filling = if machine.dice.below(10) == 0 { 5000 } else { machine.dice.below(200) as usize };
            let value = [&id.to_le_bytes()[..], &vec![7; filling]].concat();
            let message = plain(subject, value);
            let batch = stored::batch([&message]);
            let receipt = Some(Receipt::Leaves { attachment, note: u32::try_from(*id).expect("few") });
            stores.push(Store { message: Arc::new(message), batch, routes: self.routes[&at].clone(), receipt, origin: None });
        }
        self.ask(world, Asked::Store(ids), Request::Store(stores));
    }

    fn forget_receipts(&mut self, world: &mut World) {
        let Some(attachment) = self.sessions[PUBLISHER].attachment else { return };
        let in_flight = self.asked.values().any(|asked| matches!(asked, Asked::Store(_)));
        let notes: Vec<(u32, Option<Bytes>)> = self.receipts.iter().map(|id| (u32::try_from(*id).expect("few"), None)).collect();
        if !in_flight && !notes.is_empty() {
            self.receipts.clear();
            self.cursor(world, Asked::Forget, CursorMove::Note { attachment, notes });
        }
    }

    /// One turn of the shard, and the answers to what was asked before it.
    pub fn turn(&mut self, world: &mut World, context: &str) {
        let (before, counted) = (Settled::of(world), world.view.dropped_of_queues());
        world.turn();
        let counted = world.view.dropped_of_queues() - counted;
        let events = world.events();
        let lost = self.settled_by_nobody(&Settled::of(world).since(&before), &events);
        let records: u64 = lost.iter().map(|(.., offsets)| offsets.len() as u64).sum();
        // A leg that went in this turn may have lost some before.
        let legs_go = self.asked.values().any(|asked| matches!(asked, Asked::Unbind(..) | Asked::Attach { fresh: true, .. }));
        let is_counted = records == counted || (legs_go && records < counted);
        assert!(is_counted, "{context}: {records} records were settled by nobody, {counted} are counted as lost: {lost:?}");
        self.lost += records;
        for (who, partition, of, offsets) in lost {
            let Session { legs, lost, .. } = &mut self.sessions[who];
            lost.extend(offsets.iter().map(|offset| (partition, *offset)));
            if let Some(bound) = (0..FILTERS.len()).find(|at| filter(*at) == of).and_then(|at| legs.get_mut(&at)) {
                bound.lose(world, partition, &offsets, &format!("{context} session={who}"));
            }
        }
        self.hear(world, events, context);
    }

    /// Of what was settled: what no request was answered for.
    fn settled_by_nobody(&self, settled: &[Since], events: &[Event]) -> Vec<(usize, PartitionId, Filter, Vec<u64>)> {
        let refused = |tag: u64| events.iter().any(|event| matches!(event, Event::Reply { tag: of, result: Err(_) } if of.0 == tag));
        let (mut requested, mut unbound) = (BTreeSet::new(), Vec::new());
        for (_, asked) in self.asked.iter().filter(|(tag, _)| !refused(**tag)) {
            match asked {
                Asked::Done { who, partition, offsets, .. } => requested.extend(offsets.iter().map(|offset| (*who, *partition, *offset))),
                Asked::Unbind(who, at) => unbound.push((*who, filter(*at))),
                _ => {}
            }
        }
        let mut lost = Vec::new();
        for Since { session, partition, filter: of, offsets } in settled {
            let who = (0..SESSIONS).find(|who| Sessions::name(*who) == *session);
            // A leg that is bound anew begins with everything before settled.
            let Some(who) = who.filter(|who| !unbound.contains(&(*who, of.clone()))) else { continue };
            let by_nobody = offsets.iter().copied().filter(|offset| !requested.contains(&(who, *partition, *offset)));
            lost.push((who, *partition, of.clone(), by_nobody.collect()));
        }
        lost
    }

    /// Takes the answers that came up.
    fn hear(&mut self, world: &mut World, events: Vec<Event>, context: &str) {
        for event in events {
            let Event::Reply { tag: Tag(tag), result } = event else { continue };
            let Some(asked) = self.asked.remove(&tag) else { continue };
            match result {
                Ok(answer) => self.answered(world, tag, asked, answer, context),
                Err(refusal) => self.refused(tag, asked, &refusal, context),
            }
        }
    }

    fn answered(&mut self, world: &World, tag: u64, asked: Asked, answer: Answer, context: &str) {
        match (asked, answer) {
            (Asked::Attach { who, .. }, Answer::Cursor(CursorAnswer::Attached(attached))) => {
                self.durable_before(tag);
                self.attached(world, who, *attached, context);
            }
            (Asked::Bind(who, at), Answer::Cursor(CursorAnswer::Bound { leg, new })) => {
                self.durable_before(tag);
                let from = self.sent.len() as u64;
                if tag < self.sessions[who].given_up {
                    return;
                }
                let legs = &mut self.sessions[who].legs;
                if let Some(bound) = legs.get_mut(&at) {
                    assert!(!new || bound.leg.is_none(), "{context}: a leg of session {who} is gone");
                }
                legs.entry(at).or_insert_with(|| Bound::of(leg, from));
            }
            (Asked::Mark { who, filter, id, offset, tag: mark }, Answer::Cursor(CursorAnswer::Done)) => {
                // Of a leg that was unbound, or something settled, meanwhile, nothing is expected.
                let Session { legs, lost, .. } = &mut self.sessions[who];
                if let Some(bound) = legs.get_mut(&filter)
                    && !bound.asked.contains_key(&id)
                    && !bound.settled.contains(&id)
                    && !bound.leg.as_ref().is_some_and(|leg| lost.contains(&(leg.partition, offset)))
                    && !self.asked.values().any(|asked| matches!(asked, Asked::Mark { offset: other, .. } if *other == offset))
                {
                    bound.marks.insert(offset, mark);
                }
            }
            (Asked::Store(ids), Answer::Stored(results)) => {
                if results.iter().any(Result::is_ok) {
                    self.durable_before(tag);
                }
                ids.into_iter().zip(results).for_each(|(id, result)| self.stored(id, result, context));
            }
            (Asked::Unbind(..), Answer::Cursor(CursorAnswer::Unbound(_))) | (Asked::Forget, Answer::Cursor(CursorAnswer::Done)) => {
                self.durable_before(tag);
            }
            (Asked::Done { .. } | Asked::HandedOut { .. } | Asked::Detach, Answer::Cursor(CursorAnswer::Done)) => {}
            (_, answer) => panic!("{context}: an answer to another question: {answer:?}"),
        }
    }

    /// Something was acknowledged: all settlements that were asked before are durable.
    fn durable_before(&mut self, tag: u64) {
        for bound in self.sessions.iter_mut().flat_map(|session| session.legs.values_mut()) {
            bound.attempts.durable_before(tag);
            let done: Vec<u64> = bound.asked.iter().filter(|(_, asked)| **asked < tag).map(|(id, _)| *id).collect();
            for id in done {
                bound.asked.remove(&id);
                bound.settled.insert(id);
            }
        }
    }

    fn stored(&mut self, id: u64, result: Result<Stored, Refusal>, context: &str) {
        match result {
            Ok(stored) => {
                let again = !self.open.remove(&id);
                assert!(stored.duplicate || !again, "{context}: message {id} was stored twice");
                self.acknowledged.insert(id);
                self.receipts.insert(id);
            }
            Err(Refusal::StorageFull | Refusal::Conflict) => {}
            Err(refusal) => panic!("{context}: message {id} refused: {refusal:?}"),
        }
    }

    fn refused(&mut self, tag: u64, asked: Asked, refusal: &Refusal, context: &str) {
        let expected = matches!(refusal, Refusal::StorageFull | Refusal::Conflict | Refusal::NotFound);
        assert!(expected, "{context}: refused: {refusal:?}");
        assert!(!matches!(asked, Asked::Ended) || *refusal == Refusal::NotFound, "{context}: {refusal:?}");
        let (Asked::Done { who, filter, .. } | Asked::HandedOut { who, filter, .. }) = &asked else { return };
        let Some(bound) = self.sessions[*who].legs.get_mut(filter) else { return };
        match asked {
            Asked::Done { ids, .. } => bound.asked.retain(|id, _| !ids.contains(id)),
            Asked::HandedOut { offset, .. } => bound.attempts.refused(offset, tag),
            _ => {}
        }
    }

    /// Everything that the session remembers is compared with what it has to have.
    fn attached(&mut self, world: &World, who: usize, attached: Attached, context: &str) {
        let Sessions { sessions, sent, acknowledged, checked, counted, .. } = self;
        let session = &mut sessions[who];
        assert!(attached.found || !session.known || session.legs.is_empty(), "{context}: session {who} is gone");
        session.attachment = Some(attached.attachment);
        session.known = true;
        for (at, bound) in &mut session.legs {
            let leg = attached.legs.iter().find(|leg| leg.filter == filter(*at));
            let leg = leg.unwrap_or_else(|| panic!("{context}: session {who} has lost its leg on {}", FILTERS[*at]));
            *checked += 1;
            let expected = acknowledged.range(bound.from..).filter(|id| filter(*at).matches(&subject(sent[**id as usize])));
            *counted += bound.check(world, leg, expected, &format!("{context} session={who} filter={}", FILTERS[*at]));
            bound.passed = leg.settled.iter().map(|(from, to)| from.0..to.0).collect();
            bound.leg = Some(leg.clone());
        }
        if who == PUBLISHER {
            let notes: BTreeSet<u64> = attached.notes.iter().map(|(number, _)| u64::from(*number)).collect();
            let gone: Vec<&u64> = self.receipts.difference(&notes).collect();
            assert!(gone.is_empty(), "{context}: receipts are gone: {gone:?}");
        }
    }
}
