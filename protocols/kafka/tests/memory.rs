//! Lengths that claim more than there is take no memory.
#![cfg(target_os = "linux")]

use bytes::Bytes;
use firth_kafka::apis::{ApiKey, Request, Response};
use firth_kafka::codec::reader::Reader;

/// Room for what the allocator keeps for itself. The smallest claim that is made is far above it.
const GROWTH_BYTES_MAX: u64 = 32 << 20;

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).expect("hex")).collect()
}

/// Most address space that this process ever had: what was reserved counts, touched or not.
fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("a Linux kernel");
    let line = status.lines().find(|line| line.starts_with("VmPeak:")).expect("a VmPeak line");
    let kib: u64 = line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number");
    kib * 1024
}

fn read(key: ApiKey, version: i16, direction: &str, body: &[u8]) {
    let mut reader = Reader::over(Bytes::copy_from_slice(body), key.api().form(version));
    if direction == "request" {
        let _ = Request::read(key, &mut reader);
    } else {
        let _ = Response::read(key, &mut reader);
    }
}

// Alone in its file: other threads of the process would reserve memory of their own.
#[test]
fn claims_are_not_believed() {
    let claims: [&[u8]; 3] = [&[0x7f, 0xff, 0xff, 0xff], &[0xff, 0xff, 0xff, 0xff, 0x0f], &[0x7f, 0xff]];
    let mut before = None;
    for line in include_str!("golden/bodies.txt").lines().filter(|line| !line.starts_with('-')) {
        let words: Vec<&str> = line.split(' ').collect();
        let key = words[0].parse().ok().and_then(ApiKey::find).expect("a served API");
        let (version, body) = (words[1].parse().expect("a version"), unhex(words[3]));
        read(key, version, words[2], &body);
        let before = *before.get_or_insert_with(peak_bytes);
        for at in 0..body.len() {
            for claim in claims {
                let mut lie = body.clone();
                lie.iter_mut().skip(at).zip(claim).for_each(|(byte, claimed)| *byte = *claimed);
                read(key, version, words[2], &lie);
            }
        }
        assert!(peak_bytes() - before < GROWTH_BYTES_MAX, "{line}");
    }
}
