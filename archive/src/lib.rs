//! Keeps checkpoints and segments, complete or not at all.

pub mod background;
pub mod bucket;
pub mod checkpoints;
pub mod part;
pub mod probe;
pub mod segment;
pub mod segments;
pub mod store;
