//! Record batches whose content says who made them.

use bytes::Bytes;

use firth_model::batch::{Batch, HEADER_BYTES, seal};

/// Who made a batch, and which of his it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mark {
    pub producer: i64,
    pub sequence: i32,
}

/// A batch of `count` records; the broker looks at the header only, so the body is the mark and filling.
pub fn make(mark: Mark, count: i32, filling: usize) -> Batch {
    let mut bytes = vec![0; HEADER_BYTES];
    bytes.extend_from_slice(&mark.producer.to_be_bytes());
    bytes.extend_from_slice(&mark.sequence.to_be_bytes());
    bytes.resize(bytes.len() + filling, mark.sequence as u8);
    let length = u32::try_from(bytes.len() - 12).expect("small");
    bytes[8..12].copy_from_slice(&length.to_be_bytes());
    bytes[16] = 2;
    bytes[23..27].copy_from_slice(&(count - 1).to_be_bytes());
    bytes[43..51].copy_from_slice(&mark.producer.to_be_bytes());
    bytes[53..57].copy_from_slice(&mark.sequence.to_be_bytes());
    bytes[57..61].copy_from_slice(&count.to_be_bytes());
    seal(&mut bytes);
    Batch::check(Bytes::from(bytes)).expect("made well")
}

/// Reads the mark of a stored batch; `None` if its checksum does not hold.
pub fn read(bytes: &Bytes) -> Option<(Batch, Mark)> {
    let batch = Batch::check(bytes.clone()).ok()?;
    let body = bytes.get(HEADER_BYTES..HEADER_BYTES + 12)?;
    let producer = i64::from_be_bytes(body[..8].try_into().ok()?);
    let sequence = i32::from_be_bytes(body[8..].try_into().ok()?);
    Some((batch, Mark { producer, sequence }))
}
