//! The bytes of one part of a checkpoint: sorted keys and values.
//!
//! ```text
//! magic      8   "FIRTHCK1"
//! then blocks, each
//!   length   u32 bytes of the rows that follow; 0 ends the part
//!   checksum 16  XXH3-128 of the rows
//!   rows         each: value present u8 (0: the key is deleted), key length u32, value length u32, key, value
//! ```
//! Integers are little endian. Persisted: a change needs another magic and both readers.

use bytes::{Buf, Bytes};

const MAGIC: &[u8; 8] = b"FIRTHCK1";
/// Rows are grouped into blocks of about this size, so that damage is found near where it lies.
const BLOCK_BYTES: usize = 64 << 10;
const ROW_HEAD_BYTES: usize = 9;
const BLOCK_HEAD_BYTES: usize = 20;

/// A key and its value, or its deletion.
pub type Row = (Bytes, Option<Bytes>);

/// Why a part cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at byte {at}: {what}")]
pub struct PartDamage {
    pub at: usize,
    pub what: &'static str,
}

pub fn checksum(bytes: &[u8]) -> [u8; 16] {
    twox_hash::XxHash3_128::oneshot(bytes).to_le_bytes()
}

/// Writes rows, which come in the order of their keys.
pub fn write<'a>(rows: impl Iterator<Item = (&'a Bytes, Option<&'a Bytes>)>) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    let mut block = Vec::new();
    for (key, value) in rows {
        block.push(u8::from(value.is_some()));
        block.extend_from_slice(&length(key.len()));
        block.extend_from_slice(&length(value.map_or(0, Bytes::len)));
        block.extend_from_slice(key);
        block.extend_from_slice(value.map_or(&[], |value| &value[..]));
        if block.len() >= BLOCK_BYTES {
            end_block(&mut out, &mut block);
        }
    }
    if !block.is_empty() {
        end_block(&mut out, &mut block);
    }
    end_block(&mut out, &mut block);
    out
}

fn length(bytes: usize) -> [u8; 4] {
    u32::try_from(bytes).expect("a key or value is far below 4 GiB").to_le_bytes()
}

fn end_block(out: &mut Vec<u8>, block: &mut Vec<u8>) {
    out.extend_from_slice(&length(block.len()));
    out.extend_from_slice(&checksum(block));
    out.append(block);
}

/// Reads rows in order; verifies every block before its rows are given.
pub fn read(bytes: &Bytes, mut each: impl FnMut(Row)) -> Result<(), PartDamage> {
    let total = bytes.len();
    let mut rest = bytes.clone();
    let damage = |rest: &Bytes, what| PartDamage { at: total - rest.len(), what };
    if !rest.starts_with(MAGIC) {
        return Err(damage(&rest, "not a part of a checkpoint"));
    }
    rest.advance(MAGIC.len());
    loop {
        let Some(head) = rest.first_chunk::<BLOCK_HEAD_BYTES>() else {
            return Err(damage(&rest, "the part ends early"));
        };
        let block_bytes = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let stored = head[4..].to_vec();
        rest.advance(BLOCK_HEAD_BYTES);
        if block_bytes > rest.len() {
            return Err(damage(&rest, "a block ends early"));
        }
        let mut block = rest.split_to(block_bytes);
        if checksum(&block)[..] != stored[..] {
            return Err(damage(&rest, "a block's checksum does not match"));
        }
        if block_bytes == 0 {
            return if rest.is_empty() { Ok(()) } else { Err(damage(&rest, "bytes after the part")) };
        }
        while !block.is_empty() {
            each(row(&mut block).ok_or(damage(&rest, "a row ends early"))?);
        }
    }
}

fn row(block: &mut Bytes) -> Option<Row> {
    let head = *block.first_chunk::<ROW_HEAD_BYTES>()?;
    block.advance(ROW_HEAD_BYTES);
    let key_bytes = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
    let value_bytes = u32::from_le_bytes([head[5], head[6], head[7], head[8]]) as usize;
    if key_bytes.checked_add(value_bytes)? > block.len() {
        return None;
    }
    let key = block.split_to(key_bytes);
    let value = block.split_to(value_bytes);
    Some((key, (head[0] != 0).then_some(value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<Row> {
        let value = |at: u32| (!at.is_multiple_of(3)).then(|| Bytes::from(vec![at as u8; at as usize % 5000]));
        (0..200u32).map(|at| (Bytes::from(at.to_be_bytes().to_vec()), value(at))).collect()
    }

    fn written() -> Bytes {
        Bytes::from(write(rows().iter().map(|(key, value)| (key, value.as_ref()))))
    }

    #[test]
    fn rows_survive_their_bytes() {
        let mut back = Vec::new();
        read(&written(), |row| back.push(row)).expect("own bytes");
        assert_eq!(back, rows());
    }

    #[test]
    fn every_cut_and_every_flip_is_found() {
        let whole = written();
        for cut in (0..whole.len()).step_by(997) {
            assert!(read(&whole.slice(..cut), |_| ()).is_err(), "cut at {cut}");
        }
        for at in (0..whole.len()).step_by(499) {
            let mut flipped = whole.to_vec();
            flipped[at] ^= 0x10;
            assert!(read(&Bytes::from(flipped), |_| ()).is_err(), "flip at {at}");
        }
    }

    /// On the disks of users.
    #[test]
    fn a_part_keeps_its_bytes() {
        let (key, value) = (Bytes::from_static(b"k"), Bytes::from_static(b"v"));
        let bytes = write([(&key, Some(&value))].into_iter());
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let rows = "0101000000010000006b76";
        assert_eq!(&hex[..24], "4649525448434b310b000000");
        assert_eq!(&hex[56..78], rows);
        assert_eq!(bytes.len(), 8 + 20 + 11 + 20);
    }
}
