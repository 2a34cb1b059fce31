//! When a record expires, as publishers write it.

use crate::time::Millis;

/// Name of the header that says it.
pub const EXPIRES_AT: &[u8] = b"expires-at";

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// Reads the header's value: milliseconds since 1970 in decimal digits, or a time of RFC 3339 in UTC such as `2026-01-02T03:04:05Z`,
/// whose fraction of a second is cut to milliseconds. `None` of anything else.
pub fn expires_at(value: &[u8]) -> Option<Millis> {
    if value.iter().all(u8::is_ascii_digit) { std::str::from_utf8(value).ok()?.parse().ok().map(Millis) } else { rfc_3339(value) }
}

fn rfc_3339(value: &[u8]) -> Option<Millis> {
    let (date_time, rest) = value.split_at_checked(19)?;
    let separated = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if !separated.iter().all(|(at, letter)| date_time[*at].eq_ignore_ascii_case(letter)) {
        return None;
    }
    let part = |from: usize, to: usize| number(&date_time[from..to]);
    let (year, month, day) = (part(0, 4)?, part(5, 7)?, part(8, 10)?);
    let (hour, minute, second) = (part(11, 13)?, part(14, 16)?, part(17, 19)?);
    let (fraction_ms, zone) = match rest.split_first() {
        Some((b'.', rest)) => {
            let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            let ms = (0..3).fold(0, |ms, at| ms * 10 + if at < digits { i64::from(rest[at] - b'0') } else { 0 });
            ((digits > 0).then_some(ms)?, &rest[digits..])
        }
        _ => (0, rest),
    };
    let is_utc = zone.eq_ignore_ascii_case(b"z") || zone == b"+00:00" || zone == b"-00:00";
    // A second 60 is a leap second, which counts as the next minute's first.
    if !is_utc || !(1..=days_of(year, month)?).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    Some(Millis(days_since_1970(year, month, day) * DAY_MS + ((hour * 60 + minute) * 60 + second) * 1000 + fraction_ms))
}

fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0, |number, digit| digit.is_ascii_digit().then(|| number * 10 + i64::from(digit - b'0')))
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_of(year: i64, month: i64) -> Option<i64> {
    match month {
        2 => Some(if is_leap(year) { 29 } else { 28 }),
        4 | 6 | 9 | 11 => Some(30),
        1..=12 => Some(31),
        _ => None,
    }
}

/// Of a year from 0 to 9999 in the Gregorian calendar.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    const BEFORE_MONTH: [i64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    // Leap days of the years before this one; 719 528 days lie from the first of January of year 0 to 1970.
    let leap_days = (year + 3) / 4 - (year + 99) / 100 + (year + 399) / 400;
    let this_year = BEFORE_MONTH[(month as usize - 1) % 12] + i64::from(month > 2 && is_leap(year)) + day - 1;
    year * 365 + leap_days + this_year - 719_528
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_to_write_a_moment_are_read() {
        for (text, ms) in [
            ("0", 0),
            ("1767323045123", 1_767_323_045_123),
            ("1970-01-01T00:00:00Z", 0),
            ("1969-12-31T23:59:59.999z", -1),
            ("2026-01-02T03:04:05Z", 1_767_323_045_000),
            ("2026-01-02t03:04:05.1234567Z", 1_767_323_045_123),
            ("2026-01-02T03:04:05.5+00:00", 1_767_323_045_500),
            ("2024-02-29T00:00:00Z", 1_709_164_800_000),
            ("2000-03-01T00:00:00Z", 951_868_800_000),
            ("1900-03-01T00:00:00Z", -2_203_891_200_000),
            ("9999-12-31T23:59:59Z", 253_402_300_799_000),
        ] {
            assert_eq!(expires_at(text.as_bytes()), Some(Millis(ms)), "{text}");
        }
    }

    #[test]
    fn anything_else_is_none() {
        for text in [
            "",
            "-1",
            "1e9",
            " 5",
            "99999999999999999999",
            "2026-01-02",
            "2026-01-02T03:04:05",
            "2026-01-02 03:04:05Z",
            "2026-01-02T03:04:05+01:00",
            "2026-01-02T03:04:05.Z",
            "2026-02-29T03:04:05Z",
            "2026-13-01T03:04:05Z",
            "2026-00-01T03:04:05Z",
            "2026-01-00T03:04:05Z",
            "2026-01-01T24:00:00Z",
            "2026-01-02T03:04:0 Z",
            "tomorrow, or the day after",
        ] {
            assert_eq!(expires_at(text.as_bytes()), None, "{text}");
        }
        assert_eq!(expires_at(&[0xff; 30]), None);
    }
}
