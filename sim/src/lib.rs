//! Runs the node core in one thread from one seed.
//!
//! [`machine`] is what outlives a crash; [`world`] turns shard and journal by hand, so that a crash can come between any two steps;
//! [`clients`] publish, commit and administer, and remember what was acknowledged; [`walker`] reads while everything moves; [`check`]
//! compares what a restarted node serves with what they remember, and [`thinned`] does where [`records`] go one by one; [`sessions`] have
//! queue cursors, of whose legs they know a [`bound`] with its [`attempts`], [`reading`] them and looking for [`losses`]; their
//! [`messages`] are plain; [`session_run`] runs them; [`damage`] breaks bytes at rest; [`ablation`] breaks rules.

pub mod ablation;
pub mod attempts;
pub mod batches;
pub mod bound;
pub mod check;
pub mod clients;
pub mod damage;
pub mod history;
pub mod losses;
pub mod machine;
pub mod memory;
pub mod messages;
pub mod reading;
pub mod records;
pub mod run;
pub mod session_run;
pub mod sessions;
pub mod thinned;
pub mod walker;
pub mod world;
