//! Packets of MQTT 3.1, 3.1.1 and 5.0 as types and bytes.
//!
//! [`codec`] has a type for each packet, reads it from a buffer without copying what it carries, and writes it in the version its
//! receiver speaks.

pub mod codec;
#[doc(hidden)]
pub mod fuzz;
