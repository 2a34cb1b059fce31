//! Keeps one ordered, durable, fenced sequence of groups.
//!
//! Entries are queued, built into groups, and made durable with one write and one `fdatasync` for all that waits. [`core`] decides what
//! to write where and does no I/O; [`commit`] is the thread that does. [`recovery`] tells a torn tail from damage.

pub mod commit;
pub mod core;
pub mod disk;
pub mod entry;
pub mod extent;
pub mod group;
pub mod journal;
pub mod options;
pub mod reader;
pub mod recovery;
pub mod repair;
pub mod report;
mod salvage;
pub mod scan;
pub mod simdisk;
pub mod spares;
#[cfg(test)]
mod test_rig;
pub mod verify;
