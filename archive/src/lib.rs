//! Keeps checkpoints of the state, complete or not at all.
