//! Keeps checkpoints and segments, complete or not at all.

pub mod checkpoints;
pub mod part;
pub mod segment;
pub mod segments;
pub mod store;
