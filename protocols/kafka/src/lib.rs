//! Speaks Kafka to clients.
//!
//! [`messages`] describes what is said, [`codec`] turns it into bytes, [`envelope`] puts headers in front. A [`session`] serves one
//! connection: [`handlers`] answer its requests through the door. Record batches stay as their producers made them; [`records`]
//! checks them first.

pub mod apis;
pub mod client;
pub mod codec;
pub mod config;
pub mod envelope;
pub mod errors;
#[doc(hidden)]
pub mod fuzz;
pub mod group_settings;
pub mod handlers;
pub mod kafka;
pub mod messages;
pub mod node_settings;
pub mod records;
pub mod session;
pub mod setting;
pub mod settings;
pub mod versioned;

pub use config::KafkaSettings;
pub use kafka::Kafka;
