//! The messages, one family a file.
//!
//! Names, order and versions of fields are those of Apache Kafka 4.1 (stable versions only). A struct's name is Kafka's, except
//! where two of one family would be the same. Versions count within what we advertise, so `..` means every one of
//! those: Produce 0 to 2 are read although Kafka 4.1 only advertises them.

pub mod configs;
pub mod consumers;
pub mod embedded;
pub mod fetch;
pub mod groups;
pub mod metadata;
pub mod offsets;
pub mod produce;
pub mod topics;
