//! Messages of which only subject and value matter.

use bytes::Bytes;

use firth_gateway::message::Message;
use firth_model::subject::Subject;
use firth_model::time::Millis;

/// Guaranteed, not retained, without key, headers and end.
pub fn plain(subject: Subject, value: impl Into<Bytes>) -> Message {
    Message {
        subject,
        key: None,
        value: Some(value.into()),
        headers: Vec::new(),
        published: Millis(1),
        expires: None,
        guaranteed: true,
        retain: false,
        publisher: 1,
    }
}
