//! The one door to the broker: what may be asked, what may come back.
//!
//! A protocol implements [`protocol::Protocol`], gets a [`link::Link`] and a [`door::Broker`], and uses two queues: requests go
//! down with [`connection::Connection::submit`], events come up with [`connection::Connection::events`]. Reads never queue behind
//! writes: they go through [`view::LogView`] on the connection's own task.

pub mod answer;
pub mod connection;
pub mod cursors;
pub mod door;
pub mod future;
pub mod groups;
pub mod inbox;
pub mod link;
pub mod live;
pub mod message;
pub mod outbox;
pub mod produced;
pub mod protocol;
pub mod publishing;
pub mod refusal;
pub mod request;
pub mod stored;
pub mod streams;
pub mod view;
