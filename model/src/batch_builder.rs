//! Record batches as a producer makes them.

use bytes::Bytes;

use crate::batch::{HEADER_BYTES, seal};
use crate::compression::{Codec, fold};

/// Collects records and makes one batch of them.
#[derive(Clone, Debug)]
pub struct BatchBuilder {
    codec: Codec,
    producer: Producer,
    records: Vec<u8>,
    count: i32,
    base_timestamp: i64,
    max_timestamp: i64,
}

/// What makes a batch recognisable when it is sent again. The default is a producer without an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Producer {
    pub id: i64,
    pub epoch: i16,
    pub base_sequence: i32,
}

impl Default for Producer {
    fn default() -> Producer {
        Producer { id: -1, epoch: -1, base_sequence: -1 }
    }
}

/// One record to be added. Times are milliseconds since 1970.
#[derive(Clone, Copy, Debug, Default)]
pub struct Draft<'a> {
    pub timestamp: i64,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub headers: &'a [(&'a str, Option<&'a [u8]>)],
}

impl BatchBuilder {
    pub fn with_codec(codec: Codec) -> BatchBuilder {
        BatchBuilder { codec, producer: Producer::default(), records: Vec::new(), count: 0, base_timestamp: -1, max_timestamp: -1 }
    }

    pub fn producer(mut self, producer: Producer) -> BatchBuilder {
        self.producer = producer;
        self
    }

    pub fn record(mut self, draft: Draft<'_>) -> BatchBuilder {
        if self.count == 0 {
            self.base_timestamp = draft.timestamp;
        }
        self.max_timestamp = self.max_timestamp.max(draft.timestamp);
        let mut body = vec![0];
        put_varying(&mut body, draft.timestamp.wrapping_sub(self.base_timestamp));
        put_varying(&mut body, i64::from(self.count));
        put_nullable(&mut body, draft.key);
        put_nullable(&mut body, draft.value);
        put_varying(&mut body, draft.headers.len() as i64);
        for (key, value) in draft.headers {
            put_nullable(&mut body, Some(key.as_bytes()));
            put_nullable(&mut body, *value);
        }
        put_varying(&mut self.records, body.len() as i64);
        self.records.extend_from_slice(&body);
        self.count += 1;
        self
    }

    /// The batch, its checksum set, its base offset 0. Without records it is what no server takes.
    pub fn build(&self) -> Bytes {
        let records = fold(self.codec, &self.records);
        let length = i32::try_from(HEADER_BYTES - 12 + records.len()).expect("a batch stays below 2 GiB");
        let mut out = Vec::with_capacity(HEADER_BYTES + records.len());
        out.extend_from_slice(&0i64.to_be_bytes());
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&(-1i32).to_be_bytes());
        out.push(2);
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.codec.bits().to_be_bytes());
        out.extend_from_slice(&(self.count - 1).to_be_bytes());
        out.extend_from_slice(&self.base_timestamp.to_be_bytes());
        out.extend_from_slice(&self.max_timestamp.to_be_bytes());
        out.extend_from_slice(&self.producer.id.to_be_bytes());
        out.extend_from_slice(&self.producer.epoch.to_be_bytes());
        out.extend_from_slice(&self.producer.base_sequence.to_be_bytes());
        out.extend_from_slice(&self.count.to_be_bytes());
        out.extend_from_slice(&records);
        seal(&mut out);
        Bytes::from(out)
    }
}

fn put_nullable(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    put_varying(out, bytes.map_or(-1, |bytes| bytes.len() as i64));
    out.extend_from_slice(bytes.unwrap_or_default());
}

/// Zigzag, then groups of seven bits, the lowest first.
pub(crate) fn put_varying(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}
