//! Queue cursors: durable positions of which each record is settled on its own.
//!
//! A cursor has a name and any number of legs. A leg is one hidden filter stream: what is published under the filter and guaranteed
//! while the leg is bound. Who is attached reads the legs by itself through `LogView`, in the order of their positions, and settles. What
//! a protocol must remember with a cursor it keeps in notes, small values under numbers of its own choice.

use bytes::Bytes;

use firth_model::filter::Filter;
use firth_model::ids::{Offset, PartitionId, Position};
use firth_model::time::Millis;

/// Names a cursor in effects and on disk; never given out again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CursorId(pub u64);

/// Counts attachments of a cursor since the node started. What an older attachment sends is refused with `Conflict`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attachment {
    pub cursor: CursorId,
    pub generation: u64,
}

/// How long a cursor outlives its attachment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Dropped so many milliseconds after it was detached, or after the node started, if it was attached when that stopped.
    For(u64),
    Ever,
}

#[derive(Debug)]
pub enum CursorMove {
    /// Attaches to the cursor of this name, made if there is none; with `fresh` also instead of the one there is. Durable when answered.
    Attach { name: Bytes, fresh: bool, keep: Keep },
    /// `keep` in place of what the attach said. `For(0)` drops the cursor at once.
    Detach { attachment: Attachment, keep: Option<Keep> },
    /// Gives back what the attach found, as if it had not been: detached since then, or interrupted. `None` drops what the attach made.
    Return { attachment: Attachment, before: Option<Before> },
    /// Adds a leg, or puts `note` in the place of the leg's. Durable when answered.
    Bind { attachment: Attachment, filter: Filter, note: Bytes },
    /// Takes a leg away with what is unsettled of it; answered `Unbound(false)` if there was none. Durable when answered.
    Unbind { attachment: Attachment, filter: Filter },
    /// Lazy settlements may be answered before they are durable; with a mark among them it is when all are durable.
    Settle { attachment: Attachment, settles: Vec<Settle> },
    /// Settles for the cursor of this name, whoever is attached. Durable when answered.
    SettleOf { name: Bytes, settles: Vec<Settle> },
    /// Puts (`Some`) or removes notes. Durable when answered.
    Note { attachment: Attachment, notes: Vec<(u32, Option<Bytes>)> },
    /// Cursors whose name begins so, by name: those behind `after`, `max` of them, or fewer if they remember much. None: no more are there.
    List { prefix: Bytes, after: Option<Bytes>, max: usize },
    /// Ends a cursor, attached or not.
    Drop { name: Bytes },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settle {
    /// The leg's only partition.
    pub partition: PartitionId,
    pub what: Settlement,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// These offsets, from the first to before the last, are done with; their marks go too.
    Done { from: Offset, to: Offset },
    /// Remembers that the record was handed out: `tag` and `stage` are the protocol's.
    Mark { offset: Offset, tag: u32, stage: u8 },
    /// Counts one more attempt to have the record done. Lazy: a crash may forget some, and never adds any.
    HandedOut { offset: Offset },
}

#[derive(Debug)]
pub enum CursorAnswer {
    Attached(Box<Attached>),
    /// The leg, and whether it was new.
    Bound {
        leg: Leg,
        new: bool,
    },
    Unbound(bool),
    Done,
    List(Vec<CursorReport>),
}

/// All that a cursor remembers.
#[derive(Clone, Debug)]
pub struct Attached {
    pub attachment: Attachment,
    /// It was there before.
    pub found: bool,
    /// How it was until then; `None`: it was not there.
    pub before: Option<Before>,
    pub legs: Vec<Leg>,
    /// By number.
    pub notes: Vec<(u32, Bytes)>,
}

/// A cursor as an attach finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Before {
    pub keep: Keep,
    pub detached: Option<Millis>,
    /// Somebody was attached when the node stopped: what that one was doing nobody knows.
    pub interrupted: bool,
}

impl Attached {
    /// See [`Before::interrupted`].
    pub fn is_interrupted(&self) -> bool {
        self.before.is_some_and(|before| before.interrupted)
    }
}

#[derive(Clone, Debug)]
pub struct Leg {
    pub filter: Filter,
    pub note: Bytes,
    pub partition: PartitionId,
    /// What the journal held when it was bound: nothing of the leg lies below.
    pub bound_at: Position,
    /// Everything below is settled.
    pub floor: Offset,
    /// Settled at or above the floor, as (first, end), ascending.
    pub settled: Vec<(Offset, Offset)>,
    /// Handed out and not settled, ascending.
    pub marks: Vec<Mark>,
    /// How often what is not settled was handed out, where somebody counted, ascending.
    pub attempts: Vec<(Offset, u32)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    pub offset: Offset,
    pub tag: u32,
    pub stage: u8,
}

#[derive(Clone, Debug)]
pub struct CursorReport {
    pub name: Bytes,
    pub attached: bool,
    pub keep: Keep,
    /// When it was detached; the start of the node if it was attached when that stopped.
    pub detached: Option<Millis>,
    /// Filters of its legs, and the legs' notes.
    pub legs: Vec<(Filter, Bytes)>,
    pub notes: Vec<(u32, Bytes)>,
    /// Records that are stored and not settled.
    pub unsettled: u64,
    /// Records that it lost to its limits since the node started.
    pub dropped: u64,
    /// Those of them that were handed out.
    pub marked: u64,
}

/// The bit of a note's number that holds its cursor: also when its time is over it is not dropped while such a note is there. It still
/// is not found by who attaches then.
pub const HOLDS: u32 = 0x8000_0000;

/// What a publish does to the notes of a cursor, in the group of its record. One that finds it done is answered as a duplicate and stored
/// nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Receipt {
    /// Leaves a note without bytes.
    Leaves { attachment: Attachment, note: u32 },
    /// Takes a note away, whoever is attached.
    Takes { cursor: Bytes, note: u32 },
}
