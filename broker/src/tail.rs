//! Recent groups in memory: the very buffers that were written.

use std::collections::VecDeque;
use std::sync::{PoisonError, RwLock};

use bytes::Bytes;

use firth_model::ids::Position;

/// What a group takes beyond its bytes: its place here, its reference counts, what an allocator adds. Else a million small ones would
/// hold twice what they are counted as.
const GROUP_BYTES: u64 = 96;

/// Groups in the order of their positions, newest at the back, bounded in bytes. Filled by the shard, read by connections.
pub struct Tail {
    held: RwLock<Held>,
    bytes_max: u64,
}

#[derive(Default)]
struct Held {
    groups: VecDeque<(Position, Bytes)>,
    bytes: u64,
}

impl Tail {
    pub fn with_max(bytes_max: u64) -> Tail {
        Tail { held: RwLock::default(), bytes_max }
    }

    pub fn push(&self, position: Position, bytes: Bytes) {
        let mut dropped = Vec::new();
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        held.bytes += bytes.len() as u64 + GROUP_BYTES;
        held.groups.push_back((position, bytes));
        while held.bytes > self.bytes_max && held.groups.len() > 1 {
            let Some((_, oldest)) = held.groups.pop_front() else { break };
            held.bytes -= oldest.len() as u64 + GROUP_BYTES;
            dropped.push(oldest);
        }
        drop(held);
        // Freeing a large buffer is no work to do under the lock.
        drop(dropped);
    }

    /// Calls `each` with a way to look up positions, all under one lock.
    pub fn look<T>(&self, each: impl FnOnce(&dyn Fn(Position, u32) -> Option<Bytes>) -> T) -> T {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        each(&|position, bytes| held.get(position, bytes))
    }
}

impl Held {
    /// The `bytes` at `position`, if one group holds them all.
    fn get(&self, position: Position, bytes: u32) -> Option<Bytes> {
        let after = self.groups.partition_point(|(start, _)| *start <= position);
        let (start, group) = self.groups.get(after.checked_sub(1)?)?;
        let from = usize::try_from(position.0 - start.0).ok()?;
        let to = from.checked_add(bytes as usize)?;
        (to <= group.len()).then(|| group.slice(from..to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oldest_groups_leave_first() {
        let tail = Tail::with_max(10 + 2 * GROUP_BYTES);
        tail.push(Position(0), Bytes::from_static(b"abcdef"));
        tail.push(Position(8), Bytes::from_static(b"ghij"));
        let get = |position, bytes| tail.look(|at| at(Position(position), bytes));
        assert_eq!(get(2, 4), Some(Bytes::from_static(b"cdef")));
        assert_eq!(get(2, 5), None, "beyond its group");
        assert_eq!(get(7, 1), None, "between two groups");
        tail.push(Position(12), Bytes::from_static(b"k"));
        assert_eq!(get(2, 4), None);
        assert_eq!(get(9, 2), Some(Bytes::from_static(b"hi")));
    }
}
