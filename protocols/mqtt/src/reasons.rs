//! What the broker's refusals are in MQTT.

use firth_gateway::refusal::Refusal;

use crate::codec::reason::ReasonCode;

/// The reason code of a refused publish or request. All are in PUBACK, PUBREC and SUBACK.
pub fn reason_of(refusal: &Refusal) -> ReasonCode {
    match refusal {
        Refusal::StorageFull | Refusal::Overloaded => ReasonCode::QuotaExceeded,
        Refusal::Forbidden => ReasonCode::NotAuthorized,
        Refusal::TooLarge { .. } | Refusal::InvalidRecord { .. } | Refusal::Unsupported { .. } | Refusal::Malformed { .. } => {
            ReasonCode::ImplementationSpecificError
        }
        Refusal::NotFound
        | Refusal::Exists
        | Refusal::InvalidName
        | Refusal::InvalidPartitions { .. }
        | Refusal::InvalidSetting { .. }
        | Refusal::Conflict
        | Refusal::OffsetOutOfRange { .. }
        | Refusal::EpochFenced { .. }
        | Refusal::EpochUnknown { .. }
        | Refusal::Corrupt
        | Refusal::SequenceGap
        | Refusal::DuplicateSequence
        | Refusal::ProducerFenced
        | Refusal::UnknownProducer
        | Refusal::TransactionsRefused
        | Refusal::GroupNotFound
        | Refusal::GroupNotEmpty
        | Refusal::GroupFull
        | Refusal::InvalidGroup
        | Refusal::GroupKind
        | Refusal::UnknownMember
        | Refusal::MemberIdRequired { .. }
        | Refusal::IllegalGeneration
        | Refusal::RebalanceInProgress
        | Refusal::InstanceFenced
        | Refusal::InstanceInUse
        | Refusal::MemberEpochFenced
        | Refusal::MemberEpochStale
        | Refusal::InconsistentProtocol
        | Refusal::InvalidSession
        | Refusal::UnknownAssignor
        | Refusal::InvalidPattern { .. }
        | Refusal::SubscribedTo
        | Refusal::MetadataTooLarge
        | Refusal::Damaged
        | Refusal::Unavailable
        | Refusal::TimedOut
        | Refusal::Stopping => ReasonCode::UnspecifiedError,
    }
}

/// Whether the same publish may succeed a little later: before 5.0 its connection is closed then without an acknowledgement, so that the
/// client sends it again.
pub fn may_pass_later(refusal: &Refusal) -> bool {
    !matches!(
        refusal,
        Refusal::Forbidden
            | Refusal::TooLarge { .. }
            | Refusal::InvalidRecord { .. }
            | Refusal::Unsupported { .. }
            | Refusal::Malformed { .. }
    )
}
