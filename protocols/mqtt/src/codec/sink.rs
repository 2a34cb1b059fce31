//! Where a packet is written: a buffer, or a count of its bytes.

use bytes::{BufMut, BytesMut};

use crate::codec::text::{Binary, Text};

/// The largest value of a variable byte integer, of four bytes (MQTT 5.0 section 1.5.5).
pub const VARIABLE_MAX: u32 = 268_435_455;

/// Takes the bytes of a packet. Packets are written twice, first to be counted, so that both lengths and bytes come from one description.
pub trait Sink {
    fn bytes(&mut self, bytes: &[u8]);

    fn u8(&mut self, value: u8) {
        self.bytes(&[value]);
    }

    fn u16(&mut self, value: u16) {
        self.bytes(&value.to_be_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.bytes(&value.to_be_bytes());
    }

    /// A variable byte integer in as few bytes as it needs ([MQTT-1.5.5-1]): seven bits a byte, the lowest first, the eighth bit set where
    /// more follow.
    fn variable(&mut self, value: u32) {
        let mut rest = value;
        while rest > 0x7f {
            self.u8((rest & 0x7f) as u8 | 0x80);
            rest >>= 7;
        }
        self.u8((rest & 0x7f) as u8);
    }

    fn text(&mut self, text: &Text) {
        self.field(text.as_bytes());
    }

    fn binary(&mut self, binary: &Binary) {
        self.field(binary.as_bytes());
    }

    /// Bytes behind their length; the types of what is given here bound it.
    fn field(&mut self, bytes: &[u8]) {
        self.u16(u16::try_from(bytes.len()).expect("a text or binary has at most 65,535 bytes"));
        self.bytes(bytes);
    }
}

impl Sink for BytesMut {
    fn bytes(&mut self, bytes: &[u8]) {
        self.put_slice(bytes);
    }
}

/// Counts.
#[derive(Debug, Default)]
pub struct Count(pub usize);

impl Sink for Count {
    fn bytes(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variable_integers_have_the_standards_bytes() {
        // Table 1-1 of section 1.5.5.
        let table: [(u32, &[u8]); 8] = [
            (0, &[0x00]),
            (127, &[0x7f]),
            (128, &[0x80, 0x01]),
            (16_383, &[0xff, 0x7f]),
            (16_384, &[0x80, 0x80, 0x01]),
            (2_097_151, &[0xff, 0xff, 0x7f]),
            (2_097_152, &[0x80, 0x80, 0x80, 0x01]),
            (VARIABLE_MAX, &[0xff, 0xff, 0xff, 0x7f]),
        ];
        for (value, expected) in table {
            let mut out = BytesMut::new();
            out.variable(value);
            assert_eq!(out, expected);
        }
    }
}
