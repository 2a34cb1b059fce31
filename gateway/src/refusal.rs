//! Every reason to refuse a request, for the whole product.
//!
//! Each protocol maps all of it to its wire codes in one exhaustive `match`.

use firth_model::ids::{LeaderEpoch, Offset};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    // Streams and partitions
    NotFound,
    Exists,
    InvalidName,
    InvalidPartitions {
        what: &'static str,
    },
    InvalidSetting {
        what: String,
    },
    /// The thing changed since the asker looked at it.
    Conflict,
    OffsetOutOfRange {
        log_start: Offset,
        end: Offset,
    },
    /// The asker's epoch is older than the partition's.
    EpochFenced {
        current: LeaderEpoch,
    },
    /// The asker's epoch is newer than the partition's.
    EpochUnknown {
        current: LeaderEpoch,
    },
    // Publishing
    TooLarge {
        bytes: u64,
        bytes_max: u64,
    },
    Corrupt,
    InvalidRecord {
        index: u32,
        what: &'static str,
    },
    SequenceGap,
    /// The same sequence as an old batch that is no longer remembered.
    DuplicateSequence,
    ProducerFenced,
    UnknownProducer,
    TransactionsRefused,
    // Groups
    GroupNotFound,
    GroupNotEmpty,
    GroupFull,
    InvalidGroup,
    /// The group is of the other kind (old or new membership) and cannot be used this way now.
    GroupKind,
    UnknownMember,
    MemberIdRequired {
        member: String,
    },
    IllegalGeneration,
    RebalanceInProgress,
    InstanceFenced,
    InstanceInUse,
    MemberEpochFenced,
    MemberEpochStale,
    InconsistentProtocol,
    InvalidSession,
    UnknownAssignor,
    InvalidPattern {
        what: String,
    },
    SubscribedTo,
    MetadataTooLarge,
    // The node
    Malformed {
        what: &'static str,
    },
    Unsupported {
        what: &'static str,
    },
    Forbidden,
    /// The disk keeps a reserve for what frees space; publishing goes on when there is room again.
    StorageFull,
    /// What was asked for is damaged on disk; it is never served.
    Damaged,
    /// What was asked for lies in a store that cannot be reached now; it may be asked for again.
    Unavailable,
    Overloaded,
    TimedOut,
    Stopping,
}
