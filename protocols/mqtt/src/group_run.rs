//! The task of a group of shared subscriptions.

use std::collections::VecDeque;
use std::sync::Arc;

use firth_gateway::answer::{Answer, Event, Tag};
use firth_gateway::connection::{Connection, Full};
use firth_gateway::cursors::{Attachment, CursorAnswer, CursorMove, Keep, Settle, Settlement};
use firth_gateway::door::Broker;
use firth_gateway::message::Message;
use firth_gateway::message::{LiveDelivery, Overflow};
use firth_gateway::refusal::Refusal;
use firth_gateway::request::Request;
use firth_model::ids::{Offset, PartitionId};

use crate::legs::Legs;
use crate::node::Node;
use crate::queue::Queue;
use crate::shared::Group;

/// How long a group that was there before the node started is kept when its last subscriber leaves: sessions that are subscribed to it
/// may not have come back yet.
const FOUND_KEEP_MS: u64 = 24 * 60 * 60 * 1000;

struct Run {
    node: Arc<Node>,
    group: Arc<Group>,
    broker: Broker,
    connection: Connection,
    attachment: Attachment,
    partition: PartitionId,
    legs: Legs,
    live: Queue,
    /// Live messages that were dropped before they came here, as far as they are counted.
    dropped: u64,
    next_tag: u64,
    held: Option<(Tag, Request)>,
}

/// Runs the group until nobody is subscribed to it.
pub async fn run(node: Arc<Node>, broker: Broker, group: Arc<Group>) {
    loop {
        match open(&node, &broker, &group).await {
            Ok((mut run, found)) => {
                group.ready(&Ok((run.attachment, run.partition)));
                let fenced = run.serve().await;
                group.pause();
                if !fenced {
                    let keep = if found { Keep::For(FOUND_KEEP_MS) } else { Keep::For(0) };
                    let detach = CursorMove::Detach { attachment: run.attachment, keep: Some(keep) };
                    let mut last = broker.connect();
                    let _ = last.call(Request::Cursor(Box::new(detach))).await;
                }
            }
            Err(refusal) => {
                tracing::warn!(?refusal, group = group.text.as_str(), "a shared subscription cannot be kept");
                group.ready(&Err(refusal));
                // Who is subscribed tries again with its next SUBSCRIBE or CONNECT.
                group.bell.notified().await;
            }
        }
        if node.groups.forget(&group) {
            return;
        }
    }
}

async fn open(node: &Arc<Node>, broker: &Broker, group: &Arc<Group>) -> Result<(Run, bool), Refusal> {
    let mut connection = broker.connect();
    let attach = CursorMove::Attach { name: group.cursor.clone(), fresh: false, keep: Keep::Ever };
    let Answer::Cursor(CursorAnswer::Attached(attached)) = connection.call(Request::Cursor(Box::new(attach))).await? else {
        return Err(Refusal::Conflict);
    };
    let attachment = attached.attachment;
    let bind = CursorMove::Bind { attachment, filter: group.filter.clone(), note: group.text.as_bytes().clone() };
    let Answer::Cursor(CursorAnswer::Bound { leg, .. }) = connection.call(Request::Cursor(Box::new(bind))).await? else {
        return Err(Refusal::Conflict);
    };
    connection.subscribe(0, group.filter.clone(), Overflow::DropNewest);
    let mut legs = Legs::default();
    legs.add(&leg);
    let (node, group, broker, partition) = (node.clone(), group.clone(), broker.clone(), leg.partition);
    let (live, dropped) = (Queue::default(), 0);
    let run = Run { node, group, broker, connection, attachment, partition, legs, live, dropped, next_tag: 0, held: None };
    Ok((run, attached.found))
}

impl Run {
    /// Until nobody is subscribed: false; true if another attachment took the cursor.
    async fn serve(&mut self) -> bool {
        let group = self.group.clone();
        loop {
            self.settle();
            self.hand_out();
            if group.pause_if_deserted() {
                self.settle();
                return false;
            }
            let (waiter, has_room) = (self.legs.waiter(), self.connection.room());
            let (is_parked, is_reading, held) = (self.legs.is_parked(), self.legs.is_reading(), self.held.is_some());
            tokio::select! {
                () = group.bell.notified() => {}
                events = self.connection.events() => if self.heard(events) { return true },
                () = waiter.woken(), if is_parked => self.legs.woken(&**self.broker.view()),
                () = self.legs.read_cold(), if is_reading => {}
                () = has_room, if held => {}
            }
        }
    }

    /// True: the cursor is somebody else's.
    fn heard(&mut self, events: Vec<Event>) -> bool {
        let mut fenced = false;
        for event in events {
            match event {
                // What is guaranteed comes by the leg.
                Event::Live(deliveries) => {
                    let plain: VecDeque<LiveDelivery> = deliveries.into_iter().filter(|one| !one.message.guaranteed).collect();
                    let (dropped, _) = self.live.add(plain, Overflow::DropNewest);
                    self.count_dropped(dropped);
                }
                Event::Reply { result: Err(Refusal::Conflict), .. } => fenced = true,
                Event::Dropped { partition, runs } => self.legs.skip(partition, &runs),
                Event::Overrun => self.count_dropped(0),
                Event::Reply { .. } => {}
            }
        }
        fenced
    }

    /// So many, and those that were dropped before they came here.
    fn count_dropped(&mut self, records: u64) {
        let outside = self.connection.dropped();
        let records = records + outside - std::mem::replace(&mut self.dropped, outside);
        self.node.counts.dropped.fetch_add(records, std::sync::atomic::Ordering::Relaxed);
    }

    fn settle(&mut self) {
        if let Some((tag, request)) = self.held.take() {
            self.submit(tag, request);
        }
        if self.held.is_some() {
            return;
        }
        let mut offsets = self.group.take_settled();
        if offsets.is_empty() {
            return;
        }
        offsets.sort_unstable();
        let mut settles: Vec<Settle> = Vec::new();
        for offset in offsets {
            match settles.last_mut() {
                Some(Settle { what: Settlement::Done { to, .. }, .. }) if *to == offset => *to = offset.plus(1),
                _ => settles.push(Settle { partition: self.partition, what: Settlement::Done { from: offset, to: offset.plus(1) } }),
            }
        }
        self.next_tag += 1;
        let settle = CursorMove::Settle { attachment: self.attachment, settles };
        self.submit(Tag(self.next_tag), Request::Cursor(Box::new(settle)));
    }

    fn submit(&mut self, tag: Tag, request: Request) {
        if let Err(Full(request)) = self.connection.submit(tag, request) {
            self.held = Some((tag, request));
        }
    }

    /// Hands out what came back, then what is stored and what came live, as it was published, while members have room.
    fn hand_out(&mut self) {
        self.legs.stir();
        while self.group.has_room() {
            if let Some((offset, message)) = self.group.take_returned() {
                self.give(message, offset);
                continue;
            }
            let after = self.live.after();
            let view = self.broker.view().clone();
            if !self.legs.fill(&*view, after) {
                return;
            }
            let next = self.legs.peek();
            if next.is_some_and(|position| after.is_none_or(|after| position <= after)) {
                if let Some(record) = self.legs.take()
                    && !self.group.is_elsewhere(record.source.offset)
                {
                    self.give(Arc::new(record.stored.message), record.source.offset);
                }
            } else if let Some(delivery) = self.live.front() {
                // Another group of the member may have been faster.
                if !self.group.hand_out(&delivery.message, None) {
                    return;
                }
                self.live.pop();
            } else if self.legs.park(&*view) {
                return;
            }
        }
        // Nobody is there for what is not stored. Where members only have no room yet it waits for them, within its bound.
        if !self.group.has_members() {
            while self.live.pop().is_some() {}
        }
    }

    fn give(&self, message: Arc<Message>, offset: Offset) {
        if !self.group.hand_out(&message, Some(offset)) {
            self.group.take_back(Some(offset), message);
        }
    }
}
