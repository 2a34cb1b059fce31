//! A walk over the records of a batch, without building them.
//!
//! ```text
//! length          varint   bytes after this field
//! attributes      i8       unused
//! timestampDelta  varlong
//! offsetDelta     varint
//! keyLength       varint   -1 is null
//! key
//! valueLength     varint   -1 is null
//! value
//! headersCount    varint
//! headers         each: keyLength varint, key, valueLength varint (-1 is null), value
//! ```
//! Source: Apache Kafka, "Record" in the implementation chapter of its documentation. Variable-length numbers are zigzag.

use std::io::{self, BufRead};

/// Why bytes are no records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalkError {
    /// `at` counts uncompressed bytes behind the batch header.
    Malformed { at: u64, what: &'static str },
    /// The compressed bytes are not what the batch's codec writes.
    Folding,
    /// More uncompressed bytes than are walked.
    TooLarge { bytes_max: u64 },
}

/// Where a key, a value or a header's part lies; counts uncompressed bytes behind the batch header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub at: u64,
    pub bytes: u32,
}

/// What the walk saw of one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    pub timestamp_delta: i64,
    pub offset_delta: i32,
    pub key: Option<Span>,
    pub value: Option<Span>,
}

/// Longest name or value of a header that `step_watching` compares or shows.
pub const WATCHED_BYTES_MAX: usize = 40;

/// Walks a stream of uncompressed records, one record a step.
#[derive(Debug)]
pub struct Walk<R> {
    source: R,
    at: u64,
    bytes_max: u64,
}

impl<R: BufRead> Walk<R> {
    /// Walks at most `bytes_max` bytes of `source`.
    pub fn over(source: R, bytes_max: u64) -> Walk<R> {
        Walk { source, at: 0, bytes_max }
    }

    /// Uncompressed bytes walked so far.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Whether nothing is left.
    pub fn is_at_end(&mut self) -> Result<bool, WalkError> {
        match self.source.fill_buf() {
            Ok(ready) => Ok(ready.is_empty()),
            Err(error) => Err(self.failed(&error)),
        }
    }

    /// Walks one record; `header` is told of each of its headers.
    pub fn step(&mut self, mut header: impl FnMut(Span, Option<Span>)) -> Result<Step, WalkError> {
        let (step, headers, end) = self.front()?;
        for _ in 0..headers {
            self.stay_below(end)?;
            let key = self.nullable()?.ok_or_else(|| self.malformed("header without a key"))?;
            let value = self.nullable()?;
            header(key, value);
        }
        self.end_at(end)?;
        Ok(step)
    }

    /// As `step`, and shows `see` each header called by one of `names`: the name's place among them, and the value, if it has one of at
    /// most `WATCHED_BYTES_MAX` bytes. Only headers with a name of such a length cost anything. Names longer than that never occur.
    pub fn step_watching<const N: usize>(
        &mut self,
        names: [&[u8]; N],
        mut see: impl FnMut(usize, Option<&[u8]>),
    ) -> Result<Step, WalkError> {
        let (step, headers, end) = self.front()?;
        for _ in 0..headers {
            self.stay_below(end)?;
            let length = self.length()?.ok_or_else(|| self.malformed("header without a key"))?;
            let mut buffer = [0; WATCHED_BYTES_MAX];
            let watched = if names.iter().any(|name| name.len() == length as usize) {
                let name = self.copy(length, &mut buffer)?;
                names.iter().position(|watched| *watched == name)
            } else {
                self.skip(u64::from(length))?;
                None
            };
            match (self.length()?, watched) {
                (Some(length), Some(watched)) if length as usize <= WATCHED_BYTES_MAX => {
                    see(watched, Some(self.copy(length, &mut buffer)?))
                }
                (length, watched) => {
                    self.skip(u64::from(length.unwrap_or(0)))?;
                    watched.into_iter().for_each(|watched| see(watched, None));
                }
            }
        }
        self.end_at(end)?;
        Ok(step)
    }

    /// A record up to its headers, the count of these, and where the record ends.
    #[inline]
    fn front(&mut self) -> Result<(Step, i32, u64), WalkError> {
        let length = u64::try_from(self.varint()?).map_err(|_| self.malformed("negative record length"))?;
        let end = self.at + length;
        self.byte()?;
        let step = Step { timestamp_delta: self.varlong()?, offset_delta: self.varint()?, key: self.nullable()?, value: self.nullable()? };
        let headers = self.varint()?;
        if headers < 0 { Err(self.malformed("negative count of headers")) } else { Ok((step, headers, end)) }
    }

    /// Told early, as a count near the end of a record could claim headers from all records after it.
    fn stay_below(&self, end: u64) -> Result<(), WalkError> {
        if self.at >= end { Err(self.malformed("more headers than the record holds")) } else { Ok(()) }
    }

    #[inline]
    fn end_at(&self, end: u64) -> Result<(), WalkError> {
        if self.at != end { Err(self.malformed("record of another length")) } else { Ok(()) }
    }

    /// The next `length` bytes; none of them if the buffer is too small for them.
    fn copy<'b>(&mut self, length: u32, buffer: &'b mut [u8; WATCHED_BYTES_MAX]) -> Result<&'b [u8], WalkError> {
        let Some(out) = buffer.get_mut(..length as usize) else {
            self.skip(u64::from(length))?;
            return Ok(&[]);
        };
        let mut filled = 0;
        while filled < out.len() {
            let now = match self.source.fill_buf() {
                Ok(ready) => {
                    let now = ready.len().min(out.len() - filled);
                    out[filled..filled + now].copy_from_slice(&ready[..now]);
                    now
                }
                Err(error) => return Err(self.failed(&error)),
            };
            if now == 0 {
                return Err(self.malformed("end inside a record"));
            }
            self.pass(now as u64)?;
            self.source.consume(now);
            filled += now;
        }
        Ok(out)
    }

    fn nullable(&mut self) -> Result<Option<Span>, WalkError> {
        let Some(bytes) = self.length()? else { return Ok(None) };
        let span = Span { at: self.at, bytes };
        self.skip(u64::from(bytes))?;
        Ok(Some(span))
    }

    #[inline]
    fn length(&mut self) -> Result<Option<u32>, WalkError> {
        match self.varint()? {
            -1 => Ok(None),
            length => u32::try_from(length).map(Some).map_err(|_| self.malformed("negative length")),
        }
    }

    fn varint(&mut self) -> Result<i32, WalkError> {
        let zigzag = self.varying(5)?;
        let zigzag = u32::try_from(zigzag).map_err(|_| self.malformed("variable-length number beyond 32 bits"))?;
        Ok((zigzag >> 1) as i32 ^ -((zigzag & 1) as i32))
    }

    fn varlong(&mut self) -> Result<i64, WalkError> {
        let zigzag = self.varying(10)?;
        Ok((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64))
    }

    fn varying(&mut self, bytes_max: u32) -> Result<u64, WalkError> {
        let mut value = 0u64;
        for shift in (0..bytes_max).map(|index| index * 7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if (bits << shift) >> shift != bits {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.malformed("variable-length number too long"))
    }

    fn byte(&mut self) -> Result<u8, WalkError> {
        let first = match self.source.fill_buf() {
            Ok(ready) => ready.first().copied(),
            Err(error) => return Err(self.failed(&error)),
        };
        let byte = first.ok_or_else(|| self.malformed("end inside a record"))?;
        self.pass(1)?;
        self.source.consume(1);
        Ok(byte)
    }

    fn skip(&mut self, bytes: u64) -> Result<(), WalkError> {
        let mut left = bytes;
        while left > 0 {
            let ready = match self.source.fill_buf() {
                Ok(ready) => ready.len(),
                Err(error) => return Err(self.failed(&error)),
            };
            if ready == 0 {
                return Err(self.malformed("end inside a record"));
            }
            let now = usize::try_from(left).map_or(ready, |left| left.min(ready));
            self.pass(now as u64)?;
            self.source.consume(now);
            left -= now as u64;
        }
        Ok(())
    }

    /// Counts `bytes` as walked.
    fn pass(&mut self, bytes: u64) -> Result<(), WalkError> {
        self.at += bytes;
        if self.at > self.bytes_max { Err(WalkError::TooLarge { bytes_max: self.bytes_max }) } else { Ok(()) }
    }

    fn failed(&self, error: &io::Error) -> WalkError {
        if error.kind() == io::ErrorKind::FileTooLarge { WalkError::TooLarge { bytes_max: self.bytes_max } } else { WalkError::Folding }
    }

    fn malformed(&self, what: &'static str) -> WalkError {
        WalkError::Malformed { at: self.at, what }
    }
}
