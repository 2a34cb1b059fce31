//! Reads the fields of one packet, none beyond its end.

use bytes::{Buf, Bytes};

use crate::codec::fault::{DecodeError, malformed};
use crate::codec::text::{Binary, Text, TextFault};

/// What is left to read of a packet, or of a part of it.
#[derive(Debug)]
pub struct Cursor {
    rest: Bytes,
}

impl Cursor {
    pub fn over(bytes: Bytes) -> Cursor {
        Cursor { rest: bytes }
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next bytes as a slice of the input. The length is compared with what is there, so nothing is allocated by it.
    pub fn take(&mut self, length: usize) -> Result<Bytes, DecodeError> {
        if length > self.rest.len() {
            return Err(malformed("5.0 section 4.13", "a packet ends inside a field"));
        }
        Ok(self.rest.split_to(length))
    }

    /// Everything that is left.
    pub fn take_rest(&mut self) -> Bytes {
        std::mem::take(&mut self.rest)
    }

    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(self.array::<1>()?[0])
    }

    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    fn array<const LENGTH: usize>(&mut self) -> Result<[u8; LENGTH], DecodeError> {
        match self.rest.first_chunk::<LENGTH>() {
            Some(chunk) => {
                let chunk = *chunk;
                self.rest.advance(LENGTH);
                Ok(chunk)
            }
            None => Err(malformed("5.0 section 4.13", "a packet ends inside a field")),
        }
    }

    /// A variable byte integer: at most four bytes, and no more than it needs ([MQTT-1.5.5-1]).
    pub fn variable(&mut self) -> Result<u32, DecodeError> {
        match read_variable(&self.rest) {
            Variable::Whole { value, length, shortest: true } => {
                self.rest.advance(length);
                Ok(value)
            }
            Variable::Whole { .. } => Err(malformed("MQTT-1.5.5-1", "a variable byte integer is longer than it needs to be")),
            Variable::TooLong => Err(malformed("5.0 section 1.5.5", "a variable byte integer has more than four bytes")),
            Variable::Incomplete => Err(malformed("5.0 section 4.13", "a packet ends inside a field")),
        }
    }

    pub fn binary(&mut self) -> Result<Binary, DecodeError> {
        let length = self.u16()?;
        let bytes = self.take(usize::from(length))?;
        Ok(Binary::parse(bytes).expect("its length had two bytes"))
    }

    pub fn text(&mut self) -> Result<Text, DecodeError> {
        let length = self.u16()?;
        Text::parse(self.take(usize::from(length))?).map_err(|fault| match fault {
            TextFault::Null => malformed("MQTT-1.5.4-2", "a string contains U+0000"),
            TextFault::NotUtf8 | TextFault::TooLong => malformed("MQTT-1.5.4-1", "a string is not well-formed UTF-8"),
        })
    }

    /// Fails if anything is left.
    pub fn end(&self) -> Result<(), DecodeError> {
        if self.is_empty() { Ok(()) } else { Err(malformed("5.0 section 4.13", "bytes follow the last field of a packet")) }
    }
}

/// What the beginning of some bytes is as a variable byte integer.
#[derive(Debug, PartialEq, Eq)]
pub enum Variable {
    /// `shortest`: it has no more bytes than its value needs.
    Whole { value: u32, length: usize, shortest: bool },
    /// More bytes have to come.
    Incomplete,
    /// Its fourth byte says that a fifth follows.
    TooLong,
}

/// Reads a variable byte integer (MQTT 5.0 section 1.5.5).
pub fn read_variable(bytes: &[u8]) -> Variable {
    let mut value = 0;
    for (index, byte) in bytes.iter().take(4).enumerate() {
        value |= u32::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Variable::Whole { value, length: index + 1, shortest: index == 0 || *byte != 0 };
        }
    }
    if bytes.len() < 4 { Variable::Incomplete } else { Variable::TooLong }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variable_integers_are_read_to_their_bounds() {
        let whole = |value, length, shortest| Variable::Whole { value, length, shortest };
        assert_eq!(read_variable(&[0x00]), whole(0, 1, true));
        assert_eq!(read_variable(&[0xff, 0xff, 0xff, 0x7f, 9]), whole(268_435_455, 4, true));
        assert_eq!(read_variable(&[0x80, 0x00]), whole(0, 2, false));
        assert_eq!(read_variable(&[0x80, 0x80, 0x80]), Variable::Incomplete);
        assert_eq!(read_variable(&[]), Variable::Incomplete);
        assert_eq!(read_variable(&[0x80, 0x80, 0x80, 0x80]), Variable::TooLong);
        assert_eq!(read_variable(&[0x80, 0x80, 0x80, 0x80, 0x01]), Variable::TooLong);
    }
}
