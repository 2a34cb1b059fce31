//! The node's memory in bytes, and each part's share.

use crate::limits::{
    BLOCK_CACHE_BYTES, DIRECTORY_CACHE_BYTES, MEMORY_BYTES_MIN, MEMORY_SHARES_DIVISOR, REQUEST_BYTES_IN_FLIGHT_MAX,
    RESPONSE_BYTES_UNSENT_MAX, TAIL_CACHE_BYTES,
};

/// What each part may hold, in bytes. A backlog of any size changes none of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    /// What they are shares of.
    pub total: u64,
    /// Recent groups, for readers at the end of the log.
    pub tail_cache: u64,
    /// Directories of sealed extents.
    pub directory_cache: u64,
    /// Blocks of segments.
    pub block_cache: u64,
    /// Requests that are received or wait for the shard, over all connections.
    pub requests: usize,
    /// Answers with records that no socket took yet, over all connections.
    pub responses: usize,
}

impl Shares {
    /// Shares of `total` bytes of memory.
    ///
    /// A sixteenth for each cache and a sixteenth each for requests and answers, none above what it has on a large machine. Requests lie in
    /// memory twice while their group is built, and answers may overdraw their share by as much again, so at most half is promised
    /// to them together; the rest is for the state, which grows with partitions and not with records, for threads, and for the allocator.
    pub fn of(total: u64) -> Shares {
        let total = total.max(MEMORY_BYTES_MIN);
        let share = |most: u64| (total / MEMORY_SHARES_DIVISOR).min(most);
        let count = |most: usize| usize::try_from(share(most as u64)).unwrap_or(most);
        Shares {
            total,
            tail_cache: share(TAIL_CACHE_BYTES),
            directory_cache: share(DIRECTORY_CACHE_BYTES),
            block_cache: share(BLOCK_CACHE_BYTES),
            requests: count(REQUEST_BYTES_IN_FLIGHT_MAX),
            responses: count(RESPONSE_BYTES_UNSENT_MAX),
        }
    }
}

impl Default for Shares {
    /// Of a machine with more memory than the largest shares need.
    fn default() -> Shares {
        Shares::of(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_promised_is_at_most_half() {
        for total in [MEMORY_BYTES_MIN, 512 << 20, 2 << 30, 64 << 30] {
            let shares = Shares::of(total);
            let caches = shares.tail_cache + shares.directory_cache + shares.block_cache;
            let promised = caches + 2 * (shares.requests + shares.responses) as u64;
            assert!(promised <= total / 2, "{shares:?}");
            assert!(shares.requests > 0 && shares.responses > 0);
        }
    }

    #[test]
    fn a_large_machine_gives_the_largest_shares() {
        let shares = Shares::default();
        assert_eq!(shares.tail_cache, TAIL_CACHE_BYTES);
        assert_eq!(shares.requests, REQUEST_BYTES_IN_FLIGHT_MAX);
    }
}
