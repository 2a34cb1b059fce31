//! Live messages that wait for their client to have room.

use std::collections::VecDeque;

use firth_gateway::message::LiveDelivery;
use firth_model::ids::Position;
use firth_model::limits::LIVE_BYTES_MAX;

/// In the order in which they came; bounded in bytes, what does not fit is dropped and counted.
#[derive(Debug, Default)]
pub struct Queue {
    waiting: VecDeque<LiveDelivery>,
    bytes: usize,
}

impl Queue {
    /// How many found no room.
    pub fn add(&mut self, deliveries: VecDeque<LiveDelivery>) -> u64 {
        if self.waiting.is_empty() {
            // As many as the outbox took, which has the same bound.
            self.bytes = deliveries.iter().map(|delivery| delivery.message.weight()).sum();
            self.waiting = deliveries;
            return 0;
        }
        let mut dropped = 0;
        for delivery in deliveries {
            let bytes = delivery.message.weight();
            if self.bytes + bytes > LIVE_BYTES_MAX && !self.waiting.is_empty() {
                dropped += 1;
                continue;
            }
            self.bytes += bytes;
            self.waiting.push_back(delivery);
        }
        dropped
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub fn front(&self) -> Option<&LiveDelivery> {
        self.waiting.front()
    }

    /// What was durable when the first was published.
    pub fn after(&self) -> Option<Position> {
        self.front().map(|delivery| delivery.after)
    }

    pub fn pop(&mut self) -> Option<LiveDelivery> {
        let delivery = self.waiting.pop_front()?;
        self.bytes -= delivery.message.weight();
        if self.waiting.is_empty() {
            self.waiting = VecDeque::new();
        }
        Some(delivery)
    }

    pub fn iter(&self) -> impl Iterator<Item = &LiveDelivery> {
        self.waiting.iter()
    }
}
