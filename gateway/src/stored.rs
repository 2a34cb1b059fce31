//! Messages as records of a batch, and back.

use bytes::Bytes;

use firth_model::batch::Batch;
use firth_model::batch_builder::{BatchBuilder, Draft};
use firth_model::compression::Codec;
use firth_model::expiry::{EXPIRES_AT, expires_at};
use firth_model::ids::Offset;
use firth_model::limits::REQUEST_BYTES_MAX;
use firth_model::record_reader::RecordReader;
use firth_model::subject::Subject;
use firth_model::time::Millis;

use crate::message::{Message, OWN_HEADERS, PUBLISHER_HEADER, QOS_HEADER, RETAIN_HEADER, SUBJECT_HEADER, StoredMessage};
use crate::refusal::Refusal;

/// Own headers that are read back.
const KEPT_HEADERS: [&str; 2] = [QOS_HEADER, PUBLISHER_HEADER];

/// The messages as one batch, a record each.
pub fn batch<'a>(messages: impl IntoIterator<Item = &'a Message>) -> Batch {
    let builder = messages.into_iter().fold(BatchBuilder::with_codec(Codec::None), record);
    Batch::trust(builder.build()).expect("the builder makes whole batches")
}

fn record(builder: BatchBuilder, message: &Message) -> BatchBuilder {
    let subject = message.subject.as_bytes();
    let expires = message.expires.map(|at| at.0.to_string());
    let mut headers: Vec<(&str, Option<&[u8]>)> = Vec::with_capacity(message.headers.len() + 3);
    for (name, value) in &message.headers {
        // Names come from protocols whose text is UTF-8; what is not cannot be a header's name in Kafka either.
        if let Ok(name) = std::str::from_utf8(name) {
            headers.push((name, value.as_deref()));
        }
    }
    if let Some(expires) = &expires {
        headers.push((std::str::from_utf8(EXPIRES_AT).unwrap_or_default(), Some(expires.as_bytes())));
    }
    headers.push((SUBJECT_HEADER, Some(subject)));
    if message.retain {
        headers.push((RETAIN_HEADER, Some(b"1")));
    }
    let key = message.key.as_ref().unwrap_or(subject);
    let draft = Draft { timestamp: message.published.0, key: Some(key), value: message.value.as_deref(), headers: &headers };
    builder.record(draft)
}

/// The messages of a stored batch from `from` on. Records that carry no subject have `own`, that of their stream.
pub fn messages(batch: &Bytes, from: Offset, own: &Subject) -> Result<Vec<StoredMessage>, Refusal> {
    let batch = Batch::trust(batch.clone()).map_err(|_| Refusal::Damaged)?;
    let base = Offset::from_i64(batch.header.base_offset).ok_or(Refusal::Damaged)?;
    let mut messages = Vec::new();
    for record in RecordReader::over(&batch, REQUEST_BYTES_MAX as u64).map_err(|_| Refusal::Damaged)? {
        let record = record.map_err(|_| Refusal::Damaged)?;
        let offset = base.plus(u64::try_from(record.offset_delta).map_err(|_| Refusal::Damaged)?);
        if offset < from {
            continue;
        }
        let (mut subject, mut retain, mut expires) = (None, false, None);
        let mut headers = Vec::with_capacity(record.headers.len());
        for (name, value) in record.headers {
            match &*name {
                name if name == SUBJECT_HEADER.as_bytes() => subject = value.and_then(|text| Subject::from_text(text).ok()),
                name if name == RETAIN_HEADER.as_bytes() => retain = true,
                name if name == EXPIRES_AT => expires = value.as_deref().and_then(expires_at),
                own if own.starts_with(OWN_HEADERS) && !KEPT_HEADERS.iter().any(|kept| own == kept.as_bytes()) => {}
                _ => headers.push((name, value)),
            }
        }
        let subject = subject.unwrap_or_else(|| own.clone());
        let key = record.key.filter(|key| key != subject.as_bytes());
        let published = Millis(record.timestamp);
        let message = Message { subject, key, value: record.value, headers, published, expires, guaranteed: true, retain, publisher: 0 };
        messages.push(StoredMessage { offset, message });
    }
    Ok(messages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_survives_as_a_record() {
        let message = Message {
            subject: Subject::parse("order/init/1.1").expect("a subject"),
            key: None,
            value: Some(Bytes::from_static(b"hi")),
            headers: vec![(Bytes::from_static(b"a"), Some(Bytes::from_static(b"1"))), (Bytes::from_static(b"a"), None)],
            published: Millis(77),
            expires: Some(Millis(99)),
            guaranteed: true,
            retain: true,
            publisher: 0,
        };
        let own = Subject::parse("other").expect("a subject");
        let read = |message: &Message| messages(batch([message]).bytes(), Offset(0), &own).expect("own bytes");
        assert_eq!(read(&message)[0].message, message);
        let keyed = Message { key: Some(Bytes::from_static(b"k")), value: None, retain: false, ..message.clone() };
        assert_eq!(read(&keyed)[0].message, keyed);
        assert!(messages(batch([&message, &keyed]).bytes(), Offset(2), &own).expect("own bytes").is_empty());
    }
}
