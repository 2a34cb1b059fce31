//! One event that is published under a subject.

use std::sync::Arc;

use bytes::Bytes;

use firth_model::ids::{Offset, Position};
use firth_model::subject::Subject;
use firth_model::time::Millis;

/// Header of a stored record: the subject it was published under.
pub const SUBJECT_HEADER: &str = "firth-subject";
/// Header of a stored record: its publisher asked that it be retained.
pub const RETAIN_HEADER: &str = "firth-retain";
/// Header of a record that MQTT published: its quality of service, where that is not what `Message::guaranteed` says already: `2`, and
/// `0` of a retained one. Kept by [`crate::stored`], unlike the other own headers.
pub const QOS_HEADER: &str = "firth-qos";
/// Header of a record that MQTT published: the client identifier of its publisher, where a subscription of that session does not want it
/// back. Kept by [`crate::stored`] too.
pub const PUBLISHER_HEADER: &str = "firth-publisher";
/// Names that begin so are the product's own: not taken from publishers, not sent by other protocols than Kafka and HTTP.
pub const OWN_HEADERS: &[u8] = b"firth-";

/// An event on its way from a publisher to subscribers and streams. Headers have the names of the well-known ones where there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub subject: Subject,
    /// `None`: the subject is the key.
    pub key: Option<Bytes>,
    /// `None` is Kafka's null; of a retained message it says that nothing is retained any more.
    pub value: Option<Bytes>,
    pub headers: Vec<(Bytes, Option<Bytes>)>,
    /// When its publisher, or for a stored record the log, says it was made.
    pub published: Millis,
    pub expires: Option<Millis>,
    /// Its publisher waits until it is durable. Otherwise it is shown at once.
    pub guaranteed: bool,
    /// It is to be the newest of its subject for those who come later.
    pub retain: bool,
    /// The connection that published it, as `Connection::id`; 0 where that is not known any more.
    pub publisher: u64,
}

impl Message {
    /// Bytes that it holds in memory, about.
    pub fn weight(&self) -> usize {
        const PLAIN: usize = 160;
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, Bytes::len) + 64).sum();
        PLAIN + self.subject.as_bytes().len() + self.value.as_ref().map_or(0, Bytes::len) + headers
    }
}

/// A message as a partition holds it.
#[derive(Clone, Debug)]
pub struct StoredMessage {
    pub offset: Offset,
    pub message: Message,
}

/// A message that reached a live subscription.
#[derive(Clone, Debug)]
pub struct LiveDelivery {
    pub message: Arc<Message>,
    /// Which of the connection's subscriptions it matched, as they were numbered by `Connection::subscribe`.
    pub subscriptions: Arc<[u32]>,
    /// Where the last guaranteed message lies that its publisher had stored before it: that one goes first.
    pub after: Position,
}

/// What becomes of a message for which a subscriber has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    DropNewest,
    DropOldest,
    /// The subscriber is told once, and gets nothing more.
    Disconnect,
}
