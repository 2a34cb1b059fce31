//! Writes and reads the fields of stored state.
//!
//! Little endian; texts and byte strings carry a u32 length. A reader never trusts a length: it is compared with what is left.

use bytes::Bytes;

use firth_model::filter::Reserved;

/// Stored state that cannot be read: damage that its checksum did not show, or a newer version's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stored state cannot be read: {what}")]
pub struct StateDamage {
    pub what: &'static str,
}

#[derive(Default)]
pub struct Writer {
    out: Vec<u8>,
}

impl Writer {
    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.out.push(value);
        self
    }

    pub fn u16(&mut self, value: u16) -> &mut Self {
        self.out.extend_from_slice(&value.to_le_bytes());
        self
    }

    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.out.extend_from_slice(&value.to_le_bytes());
        self
    }

    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.out.extend_from_slice(&value.to_le_bytes());
        self
    }

    pub fn i16(&mut self, value: i16) -> &mut Self {
        self.out.extend_from_slice(&value.to_le_bytes());
        self
    }

    pub fn i32(&mut self, value: i32) -> &mut Self {
        self.out.extend_from_slice(&value.to_le_bytes());
        self
    }

    pub fn i64(&mut self, value: i64) -> &mut Self {
        self.out.extend_from_slice(&value.to_le_bytes());
        self
    }

    pub fn raw(&mut self, value: &[u8]) -> &mut Self {
        self.out.extend_from_slice(value);
        self
    }

    /// A count, before that many items. State is far below 4 Gi items; a larger count would be a broken invariant.
    pub fn count(&mut self, value: usize) -> &mut Self {
        self.u32(u32::try_from(value).expect("state holds fewer than 4 Gi items"))
    }

    pub fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.count(value.len()).raw(value)
    }

    pub fn text(&mut self, value: &str) -> &mut Self {
        self.bytes(value.as_bytes())
    }

    pub fn done(&mut self) -> Bytes {
        Bytes::from(std::mem::take(&mut self.out))
    }
}

pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn of(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], StateDamage> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(StateDamage { what: "value ends early" })?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], StateDamage> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    pub fn u8(&mut self) -> Result<u8, StateDamage> {
        Ok(self.array::<1>()?[0])
    }

    pub fn u16(&mut self) -> Result<u16, StateDamage> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub fn u32(&mut self) -> Result<u32, StateDamage> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub fn u64(&mut self) -> Result<u64, StateDamage> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub fn i16(&mut self) -> Result<i16, StateDamage> {
        Ok(i16::from_le_bytes(self.array()?))
    }

    pub fn i32(&mut self) -> Result<i32, StateDamage> {
        Ok(i32::from_le_bytes(self.array()?))
    }

    pub fn i64(&mut self) -> Result<i64, StateDamage> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    pub fn sixteen(&mut self) -> Result<[u8; 16], StateDamage> {
        self.array()
    }

    /// A count of items that take at least `item_bytes_min` each: never more than what is left can hold.
    pub fn count(&mut self, item_bytes_min: usize) -> Result<usize, StateDamage> {
        let count = self.u32()? as usize;
        if count > self.rest.len() / item_bytes_min.max(1) {
            return Err(StateDamage { what: "count beyond the value" });
        }
        Ok(count)
    }

    pub fn bytes(&mut self) -> Result<&'a [u8], StateDamage> {
        let count = self.count(1)?;
        self.take(count)
    }

    pub fn text(&mut self) -> Result<&'a str, StateDamage> {
        std::str::from_utf8(self.bytes()?).map_err(|_| StateDamage { what: "text is not UTF-8" })
    }

    /// Nothing may be left.
    pub fn end(&self) -> Result<(), StateDamage> {
        if self.rest.is_empty() { Ok(()) } else { Err(StateDamage { what: "bytes after the value" }) }
    }
}

/// Version byte that most values begin with.
const VALUE_VERSION: u8 = 1;

/// Checks the version byte of a value.
pub fn open_value(value: &[u8]) -> Result<Reader<'_>, StateDamage> {
    let mut from = Reader::of(value);
    if from.u8()? != VALUE_VERSION {
        return Err(StateDamage { what: "value of a newer version" });
    }
    Ok(from)
}

/// A writer that has written the version byte.
pub fn begin_value() -> Writer {
    let mut out = Writer::default();
    out.u8(VALUE_VERSION);
    out
}

/// A filter's rule for reserved subjects, as it is stored.
pub fn reserved_number(reserved: Reserved) -> u8 {
    match reserved {
        Reserved::Matched => 0,
        Reserved::DollarHidden => 1,
        Reserved::Hidden => 2,
    }
}

pub fn reserved_of_number(number: u8) -> Result<Reserved, StateDamage> {
    match number {
        0 => Ok(Reserved::Matched),
        1 => Ok(Reserved::DollarHidden),
        2 => Ok(Reserved::Hidden),
        _ => Err(StateDamage { what: "rule of a filter" }),
    }
}
