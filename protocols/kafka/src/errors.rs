//! Every refusal as Kafka's error code.
//!
//! Source: Apache Kafka protocol guide, "Error Codes".

use firth_gateway::refusal::Refusal;

pub const UNKNOWN_SERVER_ERROR: i16 = -1;
pub const NONE: i16 = 0;
pub const OFFSET_OUT_OF_RANGE: i16 = 1;
pub const CORRUPT_MESSAGE: i16 = 2;
pub const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
pub const LEADER_NOT_AVAILABLE: i16 = 5;
pub const NOT_LEADER_OR_FOLLOWER: i16 = 6;
pub const REQUEST_TIMED_OUT: i16 = 7;
pub const MESSAGE_TOO_LARGE: i16 = 10;
pub const OFFSET_METADATA_TOO_LARGE: i16 = 12;
pub const COORDINATOR_LOAD_IN_PROGRESS: i16 = 14;
pub const COORDINATOR_NOT_AVAILABLE: i16 = 15;
pub const NOT_COORDINATOR: i16 = 16;
pub const INVALID_TOPIC_EXCEPTION: i16 = 17;
pub const INVALID_REQUIRED_ACKS: i16 = 21;
pub const ILLEGAL_GENERATION: i16 = 22;
pub const INCONSISTENT_GROUP_PROTOCOL: i16 = 23;
pub const INVALID_GROUP_ID: i16 = 24;
pub const UNKNOWN_MEMBER_ID: i16 = 25;
pub const INVALID_SESSION_TIMEOUT: i16 = 26;
pub const REBALANCE_IN_PROGRESS: i16 = 27;
pub const TOPIC_AUTHORIZATION_FAILED: i16 = 29;
pub const INVALID_TIMESTAMP: i16 = 32;
pub const UNSUPPORTED_VERSION: i16 = 35;
pub const TOPIC_ALREADY_EXISTS: i16 = 36;
pub const INVALID_PARTITIONS: i16 = 37;
pub const INVALID_REPLICATION_FACTOR: i16 = 38;
pub const INVALID_REPLICA_ASSIGNMENT: i16 = 39;
pub const INVALID_CONFIG: i16 = 40;
pub const INVALID_REQUEST: i16 = 42;
pub const POLICY_VIOLATION: i16 = 44;
pub const OUT_OF_ORDER_SEQUENCE_NUMBER: i16 = 45;
pub const DUPLICATE_SEQUENCE_NUMBER: i16 = 46;
pub const INVALID_PRODUCER_EPOCH: i16 = 47;
pub const TRANSACTIONAL_ID_AUTHORIZATION_FAILED: i16 = 53;
pub const SECURITY_DISABLED: i16 = 54;
pub const STORAGE_ERROR: i16 = 56;
pub const UNKNOWN_PRODUCER_ID: i16 = 59;
pub const NON_EMPTY_GROUP: i16 = 68;
pub const GROUP_ID_NOT_FOUND: i16 = 69;
pub const FETCH_SESSION_ID_NOT_FOUND: i16 = 70;
pub const INVALID_FETCH_SESSION_EPOCH: i16 = 71;
pub const FENCED_LEADER_EPOCH: i16 = 74;
pub const UNKNOWN_LEADER_EPOCH: i16 = 75;
pub const UNSUPPORTED_COMPRESSION_TYPE: i16 = 76;
pub const MEMBER_ID_REQUIRED: i16 = 79;
pub const GROUP_MAX_SIZE_REACHED: i16 = 81;
pub const FENCED_INSTANCE_ID: i16 = 82;
pub const ELECTION_NOT_NEEDED: i16 = 84;
pub const GROUP_SUBSCRIBED_TO_TOPIC: i16 = 86;
pub const INVALID_RECORD: i16 = 87;
pub const THROTTLING_QUOTA_EXCEEDED: i16 = 89;
pub const UNKNOWN_TOPIC_ID: i16 = 100;
pub const INCONSISTENT_TOPIC_ID: i16 = 103;
pub const FENCED_MEMBER_EPOCH: i16 = 110;
pub const UNRELEASED_INSTANCE_ID: i16 = 111;
pub const UNSUPPORTED_ASSIGNOR: i16 = 112;
pub const STALE_MEMBER_EPOCH: i16 = 113;
pub const MISMATCHED_ENDPOINT_TYPE: i16 = 114;
pub const UNSUPPORTED_ENDPOINT_TYPE: i16 = 115;
pub const INVALID_REGULAR_EXPRESSION: i16 = 128;

/// The code that a client of Kafka expects for a refusal.
pub fn code(refusal: &Refusal) -> i16 {
    match refusal {
        Refusal::NotFound => UNKNOWN_TOPIC_OR_PARTITION,
        Refusal::Exists => TOPIC_ALREADY_EXISTS,
        Refusal::InvalidName => INVALID_TOPIC_EXCEPTION,
        Refusal::InvalidPartitions { .. } => INVALID_PARTITIONS,
        Refusal::InvalidSetting { .. } => INVALID_CONFIG,
        Refusal::Conflict => INVALID_REQUEST,
        Refusal::OffsetOutOfRange { .. } => OFFSET_OUT_OF_RANGE,
        Refusal::EpochFenced { .. } => FENCED_LEADER_EPOCH,
        Refusal::EpochUnknown { .. } => UNKNOWN_LEADER_EPOCH,
        Refusal::TooLarge { .. } => MESSAGE_TOO_LARGE,
        Refusal::Corrupt => CORRUPT_MESSAGE,
        Refusal::InvalidRecord { .. } => INVALID_RECORD,
        Refusal::SequenceGap => OUT_OF_ORDER_SEQUENCE_NUMBER,
        Refusal::DuplicateSequence => DUPLICATE_SEQUENCE_NUMBER,
        Refusal::ProducerFenced => INVALID_PRODUCER_EPOCH,
        Refusal::UnknownProducer => UNKNOWN_PRODUCER_ID,
        Refusal::TransactionsRefused => TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        Refusal::GroupNotFound => GROUP_ID_NOT_FOUND,
        Refusal::GroupNotEmpty => NON_EMPTY_GROUP,
        Refusal::GroupFull => GROUP_MAX_SIZE_REACHED,
        Refusal::InvalidGroup => INVALID_GROUP_ID,
        Refusal::GroupKind | Refusal::InconsistentProtocol => INCONSISTENT_GROUP_PROTOCOL,
        Refusal::UnknownMember => UNKNOWN_MEMBER_ID,
        Refusal::MemberIdRequired { .. } => MEMBER_ID_REQUIRED,
        Refusal::IllegalGeneration => ILLEGAL_GENERATION,
        Refusal::RebalanceInProgress => REBALANCE_IN_PROGRESS,
        Refusal::InstanceFenced => FENCED_INSTANCE_ID,
        Refusal::InstanceInUse => UNRELEASED_INSTANCE_ID,
        Refusal::MemberEpochFenced => FENCED_MEMBER_EPOCH,
        Refusal::MemberEpochStale => STALE_MEMBER_EPOCH,
        Refusal::InvalidSession => INVALID_SESSION_TIMEOUT,
        Refusal::UnknownAssignor => UNSUPPORTED_ASSIGNOR,
        Refusal::InvalidPattern { .. } => INVALID_REGULAR_EXPRESSION,
        Refusal::SubscribedTo => GROUP_SUBSCRIBED_TO_TOPIC,
        Refusal::MetadataTooLarge => OFFSET_METADATA_TOO_LARGE,
        Refusal::Malformed { .. } | Refusal::Unsupported { .. } => INVALID_REQUEST,
        Refusal::Forbidden => TOPIC_AUTHORIZATION_FAILED,
        // Retriable, as a full log directory is with Apache Kafka: the producer waits and tries again.
        Refusal::StorageFull | Refusal::Damaged | Refusal::Unavailable => STORAGE_ERROR,
        Refusal::Overloaded => THROTTLING_QUOTA_EXCEEDED,
        Refusal::TimedOut => REQUEST_TIMED_OUT,
        Refusal::Stopping => COORDINATOR_NOT_AVAILABLE,
    }
}

/// Words for a person, where a response has room for them.
pub fn message(refusal: &Refusal) -> String {
    match refusal {
        Refusal::InvalidPartitions { what } | Refusal::Malformed { what } | Refusal::Unsupported { what } => (*what).to_owned(),
        Refusal::InvalidSetting { what } | Refusal::InvalidPattern { what } => what.clone(),
        Refusal::TooLarge { bytes, bytes_max } => format!("{bytes} bytes are more than the {bytes_max} allowed"),
        Refusal::InvalidRecord { index, what } => format!("record {index}: {what}"),
        Refusal::OffsetOutOfRange { log_start, end } => format!("offsets from {log_start} to {end} are there"),
        Refusal::Exists => "a topic of this name exists".to_owned(),
        Refusal::NotFound => "there is no such topic or partition".to_owned(),
        Refusal::StorageFull => "the disk is full up to its reserve; publishing goes on when there is room".to_owned(),
        Refusal::Unavailable => "the store of older records cannot be reached now; ask again".to_owned(),
        Refusal::Damaged => "the records are damaged on disk and are not served".to_owned(),
        Refusal::TransactionsRefused => "transactions are not there yet".to_owned(),
        Refusal::GroupNotFound => "there is no such group".to_owned(),
        Refusal::GroupNotEmpty => "the group has members".to_owned(),
        other => format!("{other:?}"),
    }
}
