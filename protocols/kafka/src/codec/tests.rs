//! Every version of every message, there and back.

use bytes::{Bytes, BytesMut};

use crate::apis::{APIS, Api, ApiKey, Request, Response};
use crate::codec::dice::Dice;
use crate::codec::reader::Reader;
use crate::envelope::{Incoming, RequestHeader, read_request, read_response, write_request, write_response};

fn body_of(frame: &[Bytes]) -> Bytes {
    let joined = frame.iter().fold(BytesMut::new(), |mut all, chunk| {
        all.extend_from_slice(chunk);
        all
    });
    let joined = joined.freeze();
    let length = u32::from_be_bytes(*joined.first_chunk().expect("length prefix"));
    assert_eq!(length as usize, joined.len() - 4);
    joined.slice(4..)
}

fn served() -> impl Iterator<Item = (&'static Api, i16)> {
    APIS.iter().flat_map(|api| (api.min..=api.max).map(move |version| (api, version)))
}

#[test]
fn requests_come_back_as_they_went() {
    let mut dice = Dice::with_seed(1);
    for (api, version) in served() {
        for round in 0..20 {
            let request = Request::sample(api.key, &mut dice, api.form(version));
            let client_id = (round % 2 == 0).then(|| "client".into());
            let header = RequestHeader { api_key: api.key.number(), api_version: version, correlation_id: round, client_id };
            let read = read_request(body_of(&write_request(&header, &request)));
            assert_eq!(read, Ok(Incoming::Request { header, request }), "{} version {version}", api.name);
        }
    }
}

#[test]
fn responses_come_back_as_they_went() {
    let mut dice = Dice::with_seed(2);
    for (api, version) in served() {
        for round in 0..20 {
            let response = Response::sample(api.key, &mut dice, api.form(version));
            let read = read_response(api.key, version, body_of(&write_response(round, version, &response)));
            assert_eq!(read, Ok((round, response)), "{} version {version}", api.name);
        }
    }
}

#[test]
fn keys_find_their_apis() {
    for api in APIS {
        assert_eq!(ApiKey::find(api.key.number()), Some(api.key));
        assert_eq!(api.key.api(), *api);
    }
    assert!(APIS.is_sorted_by_key(|api| api.key.number()));
}

#[test]
fn small_elements_are_refused_before_they_fill_memory() {
    // A hundred thousand names of no bytes: legal lengths, but forty times the memory.
    let mut body = 100_000u32.to_be_bytes().to_vec();
    body.extend(std::iter::repeat_n(0, 200_000));
    let mut reader = Reader::over(Bytes::from(body), ApiKey::Metadata.api().form(1));
    let error = Request::read(ApiKey::Metadata, &mut reader).expect_err("refused");
    assert_eq!(error.what, "too many small elements");
}
