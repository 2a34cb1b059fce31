//! Keeps checkpoints of the state, complete or not at all.

pub mod checkpoints;
pub mod part;
pub mod store;
