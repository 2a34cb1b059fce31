//! Entry points for fuzzing: any bytes may be given to them.

use bytes::{Bytes, BytesMut};

use firth_model::batch::{Batch, seal};
use firth_model::record_reader::RecordReader;

use crate::envelope::{Incoming, read_request, write_request};
use crate::records::{RecordRules, check_records};

/// Reads `data` as a request frame without its length prefix. What can be read must come back the same after being written.
/// Returns whether it could.
pub fn fuzz_request(data: &[u8]) -> bool {
    let Ok(Incoming::Request { header, request }) = read_request(Bytes::copy_from_slice(data)) else { return false };
    let mut frame = BytesMut::new();
    for chunk in write_request(&header, &request) {
        frame.extend_from_slice(&chunk);
    }
    let again = read_request(frame.freeze().slice(4..));
    assert_eq!(again, Ok(Incoming::Request { header, request }), "a request changed on its way");
    true
}

/// Checks `data` as a produced batch, its length and checksum put right. What is found good must be readable to its end.
/// Returns whether it was.
pub fn fuzz_batch(data: &[u8]) -> bool {
    let mut bytes = data.to_vec();
    if bytes.len() > 21 {
        let length = u32::try_from(bytes.len() - 12).unwrap_or(u32::MAX);
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        bytes[16] = 2;
        seal(&mut bytes);
    }
    let Ok(batch) = Batch::check(Bytes::from(bytes)) else { return false };
    let rules = RecordRules { unfolded_bytes_max: 1 << 20, ..RecordRules::default() };
    let checked = check_records(&batch, &rules);
    let Ok(reader) = RecordReader::over(&batch, rules.unfolded_bytes_max) else {
        assert!(checked.is_err(), "a good batch could not be opened");
        return false;
    };
    let timestamps: Result<Vec<i64>, _> = reader.map(|record| record.map(|record| record.timestamp)).collect();
    let Ok(summary) = checked else { return false };
    let latest = timestamps.expect("a good batch is readable").into_iter().max();
    assert_eq!(latest, Some(summary.max_timestamp));
    true
}

#[cfg(test)]
mod tests;
