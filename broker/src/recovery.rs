//! Brings the state back: the newest checkpoint, then the journal behind it, by the same `apply`.

use std::collections::BTreeSet;
use std::sync::Arc;

use firth_archive::checkpoints::{ArchiveError, Checkpoints};
use firth_archive::store::Store;
use firth_journal::disk::Disk;
use firth_journal::journal::{Opened, open};
use firth_journal::options::{OpenError, Options};
use firth_model::ids::{ExtentNumber, Lsn, Position, SegmentId};

use crate::groups::machine::Groups;
use crate::index::Place;
use crate::layout::StateDamage;
use crate::state::State;

#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    #[error(transparent)]
    Journal(#[from] OpenError),
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error("the checkpoint holds what cannot be read: {0}")]
    Checkpoint(StateDamage),
    #[error("the journal holds entries {} to {}, the checkpoint ends at {}: what lies between is missing", first.0, last.0, checkpoint.0)]
    Gap { checkpoint: Lsn, first: Lsn, last: Lsn },
    #[error("journal entry {} holds what cannot be read: {damage}", lsn.0)]
    Entry { lsn: Lsn, damage: StateDamage },
}

pub struct Recovered {
    pub state: State,
    pub opened: Opened,
    pub checkpoints: Checkpoints,
    /// The first extent that this process writes.
    pub open_extent: ExtentNumber,
}

/// Opens the journal, which fences whoever wrote it before, and replays it into a fresh state.
pub fn recover(disk: Arc<dyn Disk>, store: Arc<dyn Store>, options: Options) -> Result<Recovered, RecoveryError> {
    let (checkpoints, loaded) = Checkpoints::open(store)?;
    let (at, position, entries) = match loaded {
        Some(loaded) => (loaded.at, loaded.position, loaded.entries),
        None => (Lsn(0), Position(0), Vec::new()),
    };
    // The extent size is fixed at first start and read back by the journal; the state learns it before the first entry.
    let extent_bytes = firth_journal::journal::extent_bytes(&*disk, &options).map_err(OpenError::Io)?;
    let mut state = State::empty(Groups::default(), extent_bytes);
    for (key, value) in &entries {
        state.load(key, value).map_err(RecoveryError::Checkpoint)?;
    }
    drop(entries);
    let mut damage = None;
    let opened = open(disk, options, position, &mut |entry| {
        if damage.is_none()
            && let Err(what) = state.replay(&entry, at)
        {
            damage = Some((entry.lsn, what));
        }
    })?;
    if let Some((lsn, damage)) = damage {
        return Err(RecoveryError::Entry { lsn, damage });
    }
    // Between the checkpoint and the first entry that is left there must be no gap, nor may the journal end before the checkpoint.
    if opened.first_lsn > at.next() || opened.last_lsn < at {
        return Err(RecoveryError::Gap { checkpoint: at, first: opened.first_lsn, last: opened.last_lsn });
    }
    let open_extent = opened.journal.open_extent();
    state.replayed(opened.journal.extents());
    Ok(Recovered { state, opened, checkpoints, open_extent })
}

/// The segments that hold live records.
pub fn live_segments(state: &State) -> BTreeSet<SegmentId> {
    // A span wholly below the log start may have been given up since.
    let live = state.partitions.values().flat_map(|held| held.spans().into_iter().filter(|span| span.end > held.log_start));
    live.filter_map(|span| if let Place::Segment(id) = span.place { Some(id) } else { None }).collect()
}
