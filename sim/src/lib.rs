//! Runs the node core in one thread from one seed.
//!
//! [`world`] turns shard and journal by hand, so that a crash can come between any two steps; [`clients`] publish, commit and
//! administer, and remember what was acknowledged; [`check`] compares what a restarted node serves with what they remember.

pub mod batches;
pub mod check;
pub mod clients;
pub mod run;
pub mod world;
