//! A message that is written into a list of chunks.

use bytes::{BufMut, Bytes, BytesMut};

use crate::codec::form::Form;

/// Smaller chunks are copied: below this the copy is cheaper than one more entry in a gathered write.
pub const SPLICE_BYTES_MIN: usize = 4096;
/// Bytes of the length in front of every frame.
const PREFIX_BYTES: usize = 4;

/// Writes small things one after another and puts large chunks between them as they are.
#[derive(Debug)]
pub struct Writer {
    /// Kept apart from `done` until the end, as the length prefix is at its front.
    first: Option<BytesMut>,
    done: Vec<Bytes>,
    head: BytesMut,
    form: Form,
    /// Bytes in `first` and `done`.
    done_bytes: usize,
}

impl Writer {
    pub fn new(form: Form) -> Writer {
        Writer { first: None, done: Vec::new(), head: BytesMut::new(), form, done_bytes: 0 }
    }

    /// A writer whose first four bytes will be the frame's length; to be ended with `frame`.
    pub fn framed(form: Form) -> Writer {
        let mut writer = Writer::new(form);
        writer.head.reserve(256);
        writer.head.put_bytes(0, PREFIX_BYTES);
        writer
    }

    pub fn form(&self) -> Form {
        self.form
    }

    /// From here on the frame is in another form: the body behind the header.
    pub fn turn(&mut self, form: Form) {
        self.form = form;
    }

    pub fn put(&mut self, bytes: &[u8]) {
        self.head.put_slice(bytes);
    }

    /// Adds `chunk`, without copying if it is large.
    pub fn splice(&mut self, chunk: &Bytes) {
        if chunk.len() < SPLICE_BYTES_MIN {
            self.put(chunk);
            return;
        }
        self.cut();
        self.done_bytes += chunk.len();
        self.done.push(chunk.clone());
    }

    pub fn uvarint(&mut self, value: u32) {
        let mut rest = value;
        while rest >= 0x80 {
            self.head.put_u8((rest & 0x7f) as u8 | 0x80);
            rest >>= 7;
        }
        self.head.put_u8(rest as u8);
    }

    /// Length of a string, `None` for null: 16 bits, or compact in a flexible form. The caller keeps within `i16::MAX`.
    pub fn short_length(&mut self, length: Option<usize>) {
        if self.form.flexible {
            return self.compact_length(length);
        }
        let length = length.map_or(-1, |length| i16::try_from(length).unwrap_or(i16::MAX));
        self.put(&length.to_be_bytes());
    }

    /// Length of bytes or an array, `None` for null: 32 bits, or compact in a flexible form.
    pub fn long_length(&mut self, length: Option<usize>) {
        if self.form.flexible {
            return self.compact_length(length);
        }
        let length = length.map_or(-1, |length| i32::try_from(length).expect("a response stays below 2 GiB"));
        self.put(&length.to_be_bytes());
    }

    fn compact_length(&mut self, length: Option<usize>) {
        let one_more = length.map_or(0, |length| u32::try_from(length + 1).expect("a response stays below 2 GiB"));
        self.uvarint(one_more);
    }

    /// One tagged field: its number, its length, and what `value` writes.
    pub fn tagged(&mut self, tag: u32, value: impl FnOnce(&mut Writer)) {
        let mut side = Writer::new(self.form);
        value(&mut side);
        self.uvarint(tag);
        self.uvarint(u32::try_from(side.bytes()).expect("a response stays below 2 GiB"));
        for chunk in side.chunks() {
            self.splice(&chunk);
        }
    }

    /// Bytes written so far.
    pub fn bytes(&self) -> usize {
        self.done_bytes + self.head.len()
    }

    /// Everything written, in order.
    pub fn chunks(mut self) -> Vec<Bytes> {
        self.cut();
        let first = self.first.map(BytesMut::freeze);
        first.into_iter().chain(self.done).collect()
    }

    /// Everything written to a `framed` writer, in order, its length patched in.
    pub fn frame(mut self) -> Vec<Bytes> {
        let length = u32::try_from(self.bytes() - PREFIX_BYTES).expect("a response stays below 2 GiB");
        let front = self.first.as_mut().unwrap_or(&mut self.head);
        front[..PREFIX_BYTES].copy_from_slice(&length.to_be_bytes());
        self.chunks()
    }

    fn cut(&mut self) {
        if self.head.is_empty() {
            return;
        }
        let head = self.head.split();
        self.done_bytes += head.len();
        if self.first.is_none() && self.done.is_empty() {
            self.first = Some(head);
        } else {
            self.done.push(head.freeze());
        }
    }
}
