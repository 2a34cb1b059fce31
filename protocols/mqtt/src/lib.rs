//! Speaks MQTT 3.1, 3.1.1 and 5.0 to clients.
//!
//! [`codec`] has a type for each packet, reads it from a buffer without copying what it carries, and writes it in the version its
//! receiver speaks. [`mqtt::Mqtt`] serves connections: [`connect`] makes a [`session::Session`] of one, [`run`] is its loop. What a client
//! publishes goes through [`receive`]; what it gets comes through [`deliver`], from the [`legs`] of a persistent session, live, or
//! [`replay`]ed from what is retained.

pub mod aliases;
mod arriving;
pub mod calls;
pub mod chores;
pub mod codec;
pub mod connect;
pub mod deliver;
pub mod described;
pub mod flights;
#[doc(hidden)]
pub mod fuzz;
pub mod group_run;
pub mod handle;
pub mod headers;
pub mod held;
pub mod inbound;
pub mod leave;
pub mod legs;
pub mod membership;
pub mod mqtt;
pub mod node;
pub mod notes;
pub mod outgoing;
pub mod queue;
pub mod reasons;
pub mod receive;
pub mod registry;
pub mod replay;
pub mod resume;
pub mod run;
pub mod session;
pub mod sessions;
pub mod shared;
pub mod shares;
pub mod subscribing;
pub mod subscriptions;
pub mod sys;
#[cfg(test)]
mod test_view;
pub mod websocket;
pub mod wills;
pub mod window;
pub mod wire;
