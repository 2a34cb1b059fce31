//! The last values that streams offer: the newest record of each subject, for who subscribes.
//!
//! They are found by reading what is stored, on a thread of their own, and lie in memory. A checkpoint keeps what was found and how far
//! was read, so that a start goes on from there; the journal holds nothing of it. `state` is the bytes, `table` what subscribers look
//! at, `follower` reads, `thread` runs it in a node.

pub mod follower;
pub mod state;
pub mod table;
pub mod thread;

#[cfg(test)]
mod tests;
