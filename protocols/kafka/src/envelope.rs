//! Frames: a header, then the body of a request or response.

use bytes::Bytes;

use crate::apis::{ApiKey, Request, Response};
use crate::codec::form::Form;
use crate::codec::reader::{Malformed, Reader};
use crate::codec::text::Str;
use crate::codec::wire::Wire;
use crate::codec::writer::Writer;

/// What stands in front of every request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHeader {
    pub api_key: i16,
    pub api_version: i16,
    pub correlation_id: i32,
    pub client_id: Option<Str>,
}

/// One frame from a client.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "nearly every frame is the large one")]
pub enum Incoming {
    Request {
        header: RequestHeader,
        request: Request,
    },
    /// A version that is not read; the body was left alone. To ApiVersions the answer has version 0.
    UnservedVersion {
        header: RequestHeader,
        key: ApiKey,
    },
    /// An API that is not served; its header's shape is unknown beyond these numbers.
    UnservedApi {
        api_key: i16,
        api_version: i16,
        correlation_id: i32,
    },
}

/// Reads one frame, without its length prefix.
pub fn read_request(frame: Bytes) -> Result<Incoming, Malformed> {
    let mut reader = Reader::over(frame, Form::plain(0));
    let (api_key, api_version) = (i16::read(&mut reader)?, i16::read(&mut reader)?);
    let correlation_id = i32::read(&mut reader)?;
    let Some(key) = ApiKey::find(api_key) else {
        return Ok(Incoming::UnservedApi { api_key, api_version, correlation_id });
    };
    // The client id has never become compact, so that any server can read it.
    let client_id = Option::<Str>::read(&mut reader)?;
    let header = RequestHeader { api_key, api_version, correlation_id, client_id };
    let api = key.api();
    if !api.reads(api_version) {
        return Ok(Incoming::UnservedVersion { header, key });
    }
    reader.turn(api.form(api_version));
    if reader.form().flexible {
        reader.tagged(|_, _| Ok(false))?;
    }
    // Bytes behind the body are left alone, as Apache Kafka does: librdkafka puts three there when it asks for all topics in a
    // flexible version of Metadata.
    let request = Request::read(key, &mut reader)?;
    Ok(Incoming::Request { header, request })
}

/// Writes a request as a frame with its length prefix.
pub fn write_request(header: &RequestHeader, request: &Request) -> Vec<Bytes> {
    let form = request.key().api().form(header.api_version);
    let mut writer = Writer::framed(Form::plain(header.api_version));
    header.api_key.write(&mut writer);
    header.api_version.write(&mut writer);
    header.correlation_id.write(&mut writer);
    header.client_id.write(&mut writer);
    writer.turn(form);
    if form.flexible {
        writer.uvarint(0);
    }
    request.write(&mut writer);
    writer.frame()
}

/// Writes the response to a request of `version` as a frame with its length prefix.
pub fn write_response(correlation_id: i32, version: i16, response: &Response) -> Vec<Bytes> {
    let api = response.key().api();
    let mut writer = Writer::framed(api.form(version));
    correlation_id.write(&mut writer);
    if api.tags_response_header(version) {
        writer.uvarint(0);
    }
    response.write(&mut writer);
    writer.frame()
}

/// Reads a response frame, without its length prefix: the correlation id and the body.
pub fn read_response(key: ApiKey, version: i16, frame: Bytes) -> Result<(i32, Response), Malformed> {
    let api = key.api();
    let mut reader = Reader::over(frame, api.form(version));
    let correlation_id = i32::read(&mut reader)?;
    if api.tags_response_header(version) {
        reader.tagged(|_, _| Ok(false))?;
    }
    let response = Response::read(key, &mut reader)?;
    reader.finish()?;
    Ok((correlation_id, response))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Version 13 of Metadata for all topics as librdkafka 2.16 writes it: three bytes too many. Found by a consumer that
    /// subscribed to a pattern and was cut off for ever.
    #[test]
    fn bytes_behind_a_request_are_left_alone() {
        let frame = [&[0, 3, 0, 13, 0, 0, 0, 5, 0, 1][..], b"c", &[0], &[0, 0, 0, 0, 1, 0, 0]].concat();
        let incoming = read_request(Bytes::from(frame)).expect("read as Apache Kafka reads it");
        let Incoming::Request { request: Request::Metadata(request), .. } = incoming else { panic!("{incoming:?}") };
        assert_eq!(request.topics, None, "all topics");
    }
}
