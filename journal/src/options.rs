//! What a journal is opened with, and what opening says.

use std::io;

use bytes::Bytes;

use firth_model::ids::Lsn;
use firth_model::time::{Clock, Millis};

use crate::entry::EntryKind;
use crate::group::Located;
use crate::report::DamageReport;

/// What a journal is opened with.
pub struct Options {
    /// `None`: a sixteenth of the volume, from 4 to 64 MiB. Fixed at first start.
    pub extent_bytes: Option<u32>,
    pub clock: Clock,
    pub cluster_id: [u8; 16],
    /// Extents kept for what frees space.
    pub reserve_extents: u32,
    /// Gives nonces and incarnations.
    pub random: Box<dyn FnMut() -> [u8; 16] + Send>,
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the journal is in use by another process")]
    InUse,
    /// Records that may have been acknowledged cannot be read. Nothing was changed.
    #[error("the journal is damaged: {0}")]
    Damaged(Box<DamageReport>),
    #[error("the journal belongs to another cluster")]
    Cluster,
    #[error("journal entry {} is of kind {kind}, which this version does not know", lsn.0)]
    UnknownKind { lsn: Lsn, kind: u16 },
    #[error("the journal cannot be used: {0}")]
    Io(#[from] io::Error),
}

/// One entry read back.
pub struct Replayed<'a> {
    pub lsn: Lsn,
    pub append_ms: Millis,
    pub kind: EntryKind,
    pub version: u8,
    pub body: Bytes,
    /// For batches: where it lies, for each partition that has it.
    pub placed: &'a [Located],
}
