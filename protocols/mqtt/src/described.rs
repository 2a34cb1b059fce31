//! What is told of a session, as JSON.

use std::fmt::Write;
use std::net::SocketAddr;

use bytes::Bytes;

use firth_gateway::cursors::{CursorReport, Keep};
use firth_model::time::Millis;

use crate::codec::qos::QoS;
use crate::codec::text::Text;
use crate::codec::version::ProtocolVersion;
use crate::notes::{NOTE_FLIGHT, NOTE_KIND, NOTE_SUBSCRIPTION};
use crate::subscriptions::Subscribed;

/// Subscriptions of one session that are shown by name; the rest is counted.
pub const FILTERS_MAX: usize = 1000;

/// A session whose client is connected, as it sees itself.
#[derive(Debug)]
pub struct Described {
    /// The broker knows it too.
    pub durable: bool,
    pub version: ProtocolVersion,
    pub address: SocketAddr,
    pub expiry_s: u32,
    pub subscriptions: usize,
    pub filters: Vec<(Text, QoS)>,
    pub in_flight: usize,
    /// Live messages that wait for room.
    pub waiting: usize,
}

/// One session: what its connection says, if there is one, and what the broker keeps, if it does. Times are those of `now`.
pub fn to_json(id: &Text, described: Option<&Described>, report: Option<&CursorReport>, now: Millis) -> Bytes {
    let mut out = String::from("{\"client_id\":");
    string(id.as_str(), &mut out);
    let _ = write!(out, ",\"connected\":{}", described.is_some());
    let unsettled = report.map_or(0, |report| report.unsettled);
    match (described, report) {
        (Some(one), _) => {
            let version = match one.version {
                ProtocolVersion::V31 => "3.1",
                ProtocolVersion::V311 => "3.1.1",
                ProtocolVersion::V5 => "5.0",
            };
            let _ = write!(out, ",\"version\":\"{version}\",\"address\":\"{}\"", one.address);
            expiry(one.expiry_s, &mut out);
            let in_flight = one.in_flight as u64;
            let waiting = if one.durable { unsettled.saturating_sub(in_flight) } else { 0 } + one.waiting as u64;
            let _ = write!(out, ",\"in_flight\":{in_flight},\"waiting\":{waiting}");
            dropped(report, &mut out);
            filters(one.subscriptions, one.filters.clone(), &mut out);
        }
        (None, Some(report)) => {
            if let Some(detached) = report.detached {
                let _ = write!(out, ",\"away_s\":{}", now.since(detached).max(0) / 1000);
            }
            let expiry_s = match report.keep {
                Keep::Ever => u32::MAX,
                Keep::For(ms) => u32::try_from(ms / 1000).unwrap_or(u32::MAX),
            };
            expiry(expiry_s, &mut out);
            let in_legs = report.marked;
            let elsewhere = report.notes.iter().filter(|(number, _)| number & NOTE_KIND == NOTE_FLIGHT).count() as u64;
            let _ = write!(out, ",\"in_flight\":{},\"waiting\":{}", in_legs + elsewhere, unsettled.saturating_sub(in_legs));
            dropped(Some(report), &mut out);
            let notes = report.notes.iter().filter(|(number, _)| number & NOTE_KIND == NOTE_SUBSCRIPTION).map(|(_, note)| note);
            let all = report.legs.iter().map(|(_, note)| note).chain(notes);
            let all: Vec<_> = all.filter_map(Subscribed::from_note).map(|one| (one.text, one.options.qos)).collect();
            filters(all.len(), all, &mut out);
        }
        (None, None) => {}
    }
    out.push('}');
    out.into()
}

/// `expiry_s` of a session that is kept for ever is null.
fn expiry(expiry_s: u32, out: &mut String) {
    let _ = write!(out, ",\"kept\":{},\"expiry_s\":", expiry_s > 0);
    let _ = if expiry_s == u32::MAX { write!(out, "null") } else { write!(out, "{expiry_s}") };
}

/// Records that a kept session lost to its limits since the node started.
fn dropped(report: Option<&CursorReport>, out: &mut String) {
    if let Some(report) = report {
        let _ = write!(out, ",\"dropped\":{}", report.dropped);
    }
}

fn filters(count: usize, mut filters: Vec<(Text, QoS)>, out: &mut String) {
    filters.sort_unstable_by(|one, other| one.0.cmp(&other.0));
    let _ = write!(out, ",\"subscriptions\":{count},\"filters\":[");
    for (at, (text, qos)) in filters.iter().take(FILTERS_MAX).enumerate() {
        out.push_str(if at == 0 { "{\"filter\":" } else { ",{\"filter\":" });
        string(text.as_str(), out);
        let _ = write!(out, ",\"qos\":{}}}", qos.number());
    }
    out.push(']');
}

/// A string of JSON. Source: RFC 8259 section 7.
fn string(text: &str, out: &mut String) {
    out.push('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => out.extend(['\\', letter]),
            letter if letter < ' ' => {
                let _ = write!(out, "\\u{:04x}", u32::from(letter));
            }
            letter => out.push(letter),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_those_of_json() {
        let mut out = String::new();
        string("a\"\\\n\u{7f}é", &mut out);
        assert_eq!(out, "\"a\\\"\\\\\\u000a\u{7f}é\"");
    }

    #[test]
    fn a_session_that_is_away_is_told_of_by_what_is_kept() {
        let report = CursorReport {
            name: Bytes::from_static(b"mqtt/a"),
            attached: false,
            keep: Keep::For(60_000),
            detached: Some(Millis(1000)),
            legs: Vec::new(),
            notes: vec![(NOTE_SUBSCRIPTION, Bytes::from_static(b"\0\0\0\0\0a/#"))],
            unsettled: 3,
            marked: 1,
            dropped: 7,
        };
        let told = to_json(&Text::fixed("a"), None, Some(&report), Millis(4000));
        let expected = concat!(
            r#"{"client_id":"a","connected":false,"away_s":3,"kept":true,"expiry_s":60,"#,
            r#""in_flight":1,"waiting":2,"dropped":7,"subscriptions":1,"filters":[{"filter":"a/#","qos":0}]}"#
        );
        assert_eq!(std::str::from_utf8(&told), Ok(expected));
    }
}
