//! The words of the product: records, batches, ids, time, limits.
//!
//! Pure data. Nothing here waits, reads a clock, opens a file or knows a protocol.

pub mod batch;
pub mod ids;
pub mod ledger;
pub mod limits;
pub mod names;
pub mod time;
