//! Messages inside of messages: their version, then the body.

use bytes::{Bytes, BytesMut};

use crate::codec::form::Form;
use crate::codec::reader::{Malformed, Reader};
use crate::codec::wire::Wire;
use crate::codec::writer::Writer;

/// Newest version of `ConsumerProtocolSubscription` and of `ConsumerProtocolAssignment`.
pub const CONSUMER_PROTOCOL_VERSION: i16 = 3;

/// Reads a consumer protocol message and its version. One newer than we know is read as the newest we know, and what it has
/// beyond that is left: newer versions only add to the end.
pub fn read_versioned<T: Wire>(bytes: Bytes) -> Result<(i16, T), Malformed> {
    let mut reader = Reader::over(bytes, Form::plain(0));
    let version = i16::read(&mut reader)?;
    if version < 0 {
        return Err(reader.malformed("negative version"));
    }
    reader.turn(Form::plain(version.min(CONSUMER_PROTOCOL_VERSION)));
    Ok((version, T::read(&mut reader)?))
}

/// Writes a consumer protocol message in `version`.
pub fn write_versioned(version: i16, message: &impl Wire) -> Bytes {
    let mut writer = Writer::new(Form::plain(version));
    version.write(&mut writer);
    message.write(&mut writer);
    let mut all = BytesMut::with_capacity(writer.bytes());
    for chunk in writer.chunks() {
        all.extend_from_slice(&chunk);
    }
    all.freeze()
}
