//! The words of the product: records, batches, ids, time, limits.
//!
//! Pure data. Nothing here waits, reads a clock, opens a file or knows a protocol.

pub mod batch;
pub mod batch_builder;
pub mod compression;
pub mod ids;
pub mod limits;
pub mod names;
pub mod record_reader;
pub mod time;
pub mod walk;
