//! Queue cursors: who is attached, what of each leg is settled, and which filter streams that needs.
//!
//! `state` is what is remembered and its bytes, `table` holds all cursors and is the only code that changes the durable part, `filters`
//! knows the streams that legs lie on, `deciding` says what a move comes to without changing anything, `serving` does it in the shard:
//! effects, answers, hidden streams, upkeep. `limits` says what a queue that is over its limits loses, `limiting` takes it away.

pub mod care;
pub mod deciding;
mod filters;
mod limiting;
pub mod limits;
mod serving;
pub mod state;
pub mod table;

#[cfg(test)]
mod tests;
