//! Decides and remembers: streams, partitions, producers, cursors, groups.
//!
//! `decide` may refuse and changes nothing; `apply` cannot refuse and is the only code that changes state; recovery is the same
//! `apply`. See ARCHITECTURE.md for the path of a record.

mod administer;
#[doc(hidden)]
pub mod bench;
pub mod catalog;
pub mod clock_watch;
mod cold;
pub mod effect;
mod extents;
pub mod groups;
mod index;
mod layout;
pub mod node;
mod partition;
mod partition_view;
mod producers;
mod read_behind;
pub mod recovery;
mod schedule;
pub mod shard;
pub mod state;
mod tail;
mod upkeep;
pub mod view;
