//! Keeps checkpoints of the state, complete or not at all.

pub mod bucket;
pub mod checkpoints;
pub mod part;
pub mod probe;
pub mod store;
