//! What MQTT says on the wire, and what it may not say.
//!
//! One type stands for a packet in all versions; what a version lacks is left out when it is written in it. [`decode`] finds packets in
//! a buffer and gives them back as slices of it: topics, strings and payloads are not copied, so a packet that is kept keeps its buffer.
//! A string is a [`text::Text`] and thus well-formed once it exists. [`encode`] counts a packet before it writes it.
//!
//! References are to the OASIS standards: `[MQTT-3.1.2-3]` is a statement of MQTT 5.0, or of 3.1.1 where that is said.

pub mod acknowledgement;
pub mod connack;
pub mod connect;
pub mod cursor;
pub mod decode;
pub mod encode;
pub mod fault;
pub mod header;
pub mod kind;
pub mod leave;
pub mod packet;
pub mod place;
pub mod property;
pub mod publish;
pub mod qos;
pub mod reason;
pub mod sink;
pub mod subscribe;
pub mod text;
pub mod topic;
pub mod version;

#[cfg(test)]
mod golden_tests;
#[cfg(test)]
mod malformed_tests;
#[cfg(test)]
mod round_trip_tests;
