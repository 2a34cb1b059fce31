//! The words of the product: records, batches, ids, time, limits.
//!
//! Pure data. Nothing here waits, reads a clock, opens a file or knows a protocol.

pub mod batch;
pub mod batch_builder;
pub mod cleaning;
pub mod compression;
pub mod escape;
pub mod expiry;
pub mod filter;
pub mod ids;
pub mod key_map;
pub mod ledger;
pub mod limits;
pub mod names;
pub mod partitioner;
pub mod record_reader;
pub mod removed;
pub mod spelling;
pub mod stream_subject;
pub mod subject;
pub mod time;
pub mod walk;
