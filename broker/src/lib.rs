//! Decides and remembers: streams, partitions, producers, cursors, groups.
//!
//! `decide` may refuse and changes nothing; `apply` cannot refuse and is the only code that changes state; recovery is the same
//! `apply`. See ARCHITECTURE.md for the path of a record.

mod administer;
pub mod archiver;
pub mod archiving;
#[doc(hidden)]
pub mod bench;
pub mod catalog;
pub mod clock_watch;
mod cold;
pub mod cursors;
pub mod effect;
mod extents;
pub mod groups;
pub mod index;
pub mod lasts;
mod layout;
mod moving;
pub mod node;
mod partition;
mod partition_view;
mod producers;
mod producing;
pub mod read_behind;
pub mod recovery;
mod removals;
pub mod repair;
pub mod replaced;
pub mod retained;
pub mod router;
pub mod routing;
mod schedule;
pub mod shard;
pub mod state;
pub mod storing;
mod stripped;
mod tail;
mod thinning;
mod upkeep;
pub mod view;
