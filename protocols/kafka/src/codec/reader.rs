//! A frame that is read field by field, without copying.

use bytes::Bytes;

use crate::codec::form::Form;

/// Memory that the arrays of one message may take besides four bytes for each byte received. Ten thousand short names in
/// a metadata request need it: a name of six bytes takes 48 once it stands in a struct.
pub const ARRAY_BYTES_FREE: usize = 1 << 20;
/// Bytes of memory for arrays that each received byte entitles to.
const ARRAY_BYTES_PER_BYTE: usize = 4;

/// Bytes that are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// Position in the frame, behind its length prefix.
    pub at: usize,
    pub what: &'static str,
}

/// Reads from the front of a frame. No call panics or allocates more than the frame's length entitles to.
#[derive(Debug)]
pub struct Reader {
    frame: Bytes,
    at: usize,
    form: Form,
    credit: usize,
}

impl Reader {
    /// Reads `frame`, which is without its length prefix.
    pub fn over(frame: Bytes, form: Form) -> Reader {
        let credit = frame.len().saturating_mul(ARRAY_BYTES_PER_BYTE).saturating_add(ARRAY_BYTES_FREE);
        Reader { frame, at: 0, form, credit }
    }

    pub fn form(&self) -> Form {
        self.form
    }

    /// From here on the frame is in another form: the body behind the header.
    pub fn turn(&mut self, form: Form) {
        self.form = form;
    }

    pub fn at(&self) -> usize {
        self.at
    }

    pub fn remaining(&self) -> usize {
        self.frame.len() - self.at
    }

    /// The error that the bytes here are `what`.
    pub fn malformed(&self, what: &'static str) -> Malformed {
        Malformed { at: self.at, what }
    }

    /// Ends the reading; anything left over is an error.
    pub fn finish(self) -> Result<(), Malformed> {
        if self.remaining() == 0 { Ok(()) } else { Err(self.malformed("bytes after the end")) }
    }

    /// The next `N` bytes, for fixed-width numbers.
    pub fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let Some(bytes) = self.frame[self.at..].first_chunk::<N>() else {
            return Err(self.malformed("end of frame inside a number"));
        };
        self.at += N;
        Ok(*bytes)
    }

    /// The next `bytes` bytes, as a slice of the frame.
    pub fn slice(&mut self, bytes: usize) -> Result<Bytes, Malformed> {
        if bytes > self.remaining() {
            return Err(self.malformed("length beyond the end"));
        }
        let slice = self.frame.slice(self.at..self.at + bytes);
        self.at += bytes;
        Ok(slice)
    }

    /// An unsigned number in groups of seven bits, the lowest first; at most five bytes.
    pub fn uvarint(&mut self) -> Result<u32, Malformed> {
        let mut value = 0u32;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.fixed::<1>()?;
            if shift == 28 && byte > 0x0f {
                break;
            }
            value |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.malformed("variable-length number beyond 32 bits"))
    }

    /// Length of a string, `None` for null: 16 bits, or compact in a flexible form.
    pub fn short_length(&mut self) -> Result<Option<usize>, Malformed> {
        if self.form.flexible {
            return self.compact_length();
        }
        let length = i16::from_be_bytes(self.fixed()?);
        self.length(i32::from(length))
    }

    /// Length of bytes or an array, `None` for null: 32 bits, or compact in a flexible form.
    pub fn long_length(&mut self) -> Result<Option<usize>, Malformed> {
        if self.form.flexible {
            return self.compact_length();
        }
        let length = i32::from_be_bytes(self.fixed()?);
        self.length(length)
    }

    fn compact_length(&mut self) -> Result<Option<usize>, Malformed> {
        let one_more = self.uvarint()?;
        let length = one_more.checked_sub(1).map(usize::try_from);
        length.transpose().map_err(|_| self.malformed("length"))
    }

    fn length(&self, length: i32) -> Result<Option<usize>, Malformed> {
        if length == -1 {
            return Ok(None);
        }
        usize::try_from(length).map(Some).map_err(|_| self.malformed("negative length"))
    }

    /// Room for `count` elements of which each takes `least_bytes` on the wire or more. Refuses a count that the rest of the
    /// frame cannot hold, and more memory than the frame's length entitles to.
    pub fn room<T>(&mut self, count: usize, least_bytes: usize) -> Result<Vec<T>, Malformed> {
        if count > self.remaining() / least_bytes.max(1) {
            return Err(self.malformed("array longer than the frame"));
        }
        let memory = count.saturating_mul(size_of::<T>());
        let Some(credit) = self.credit.checked_sub(memory) else {
            return Err(self.malformed("too many small elements"));
        };
        self.credit = credit;
        Ok(Vec::with_capacity(count))
    }

    /// Reads the tagged fields at the end of a struct. `known` reads the value of a tag it knows and says whether it did;
    /// values of other tags are skipped.
    pub fn tagged(&mut self, mut known: impl FnMut(&mut Reader, u32) -> Result<bool, Malformed>) -> Result<(), Malformed> {
        for _ in 0..self.uvarint()? {
            let tag = self.uvarint()?;
            let length = usize::try_from(self.uvarint()?).unwrap_or(usize::MAX);
            if length > self.remaining() {
                return Err(self.malformed("tagged field beyond the end"));
            }
            let end = self.at + length;
            if !known(self, tag)? {
                self.at = end;
            } else if self.at != end {
                return Err(self.malformed("tagged field of another length"));
            }
        }
        Ok(())
    }
}
