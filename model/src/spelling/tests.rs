//! Tests of the spellings: one to one, in both directions.

use std::collections::HashMap;

use proptest::prelude::*;

use crate::filter::{Filter, FilterLevel};
use crate::spelling::{Spelling, fuzz_decode};
use crate::subject::{Subject, SubjectError};

fn check(spelling: Spelling, text: &str, canonical: &str) {
    let subject = spelling.subject(text.as_bytes()).unwrap();
    assert_eq!(subject.as_str(), canonical, "{spelling:?}");
    assert_eq!(spelling.subject_text(&subject), text, "{spelling:?}");
}

#[test]
fn subjects_are_written_as_documented() {
    check(Spelling::Mqtt, "a/b/c", "a/b/c");
    check(Spelling::Mqtt, "/a//", "/a//");
    check(Spelling::Mqtt, "a.b/c d/>/x*", "a.b/c d/%3E/x%2A");
    check(Spelling::Mqtt, "a%2Bb%2F%23/%00", "a+b%2F#/\0");
    check(Spelling::Mqtt, "a/%23", "a/%23");
    check(Spelling::Mqtt, "%252B/%2b/%", "%2B/%2b/%");
    check(Spelling::Mqtt, "%FF/%C3%A9/é", "%FF/%C3%A9/é");
    check(Spelling::Mqtt, "%00", "");
    check(Spelling::Mqtt, "%2500", "\0");
    check(Spelling::Mqtt, "%252500", "%00");
    check(Spelling::Nats, "a.b", "a/b");
    check(Spelling::Nats, "a/b.1%2E1", "a%2Fb/1.1");
    check(Spelling::Nats, "%00.a.%00", "/a/");
    check(Spelling::Nats, "%00", "");
    check(Spelling::Nats, "a*b.foo>.#.+.%2A.%3E", "a*b/foo>/%23/+/%2A/%3E");
    check(Spelling::Nats, "a%20b%09", "a b\t");
    check(Spelling::Amqp, "a..b.", "a//b/");
    check(Spelling::Amqp, "", "");
    check(Spelling::Amqp, "%2A.%23.>.a*", "%2A/%23/%3E/a%2A");
    check(Spelling::Canonical, "a/b", "a/b");
}

#[test]
fn texts_that_are_no_subjects_are_refused() {
    let fault = |spelling: Spelling, text: &[u8]| spelling.subject(text).unwrap_err();
    assert_eq!(fault(Spelling::Mqtt, b"a/+"), SubjectError::Wildcard { at: 2 });
    assert_eq!(fault(Spelling::Mqtt, b"a/b#"), SubjectError::Wildcard { at: 3 });
    assert_eq!(fault(Spelling::Mqtt, b"a/b\0"), SubjectError::Character { at: 3 });
    assert_eq!(fault(Spelling::Mqtt, b""), SubjectError::EmptyLevel { at: 0 });
    assert_eq!(fault(Spelling::Mqtt, b"a/\xFF"), SubjectError::NotUtf8 { at: 2 });
    assert_eq!(fault(Spelling::Nats, b"a..b"), SubjectError::EmptyLevel { at: 2 });
    assert_eq!(fault(Spelling::Nats, b"a."), SubjectError::EmptyLevel { at: 2 });
    assert_eq!(fault(Spelling::Nats, b"a.b c"), SubjectError::Character { at: 3 });
    assert_eq!(fault(Spelling::Nats, b"a.*"), SubjectError::Wildcard { at: 2 });
    assert_eq!(fault(Spelling::Nats, b">"), SubjectError::Wildcard { at: 0 });
    assert_eq!(fault(Spelling::Amqp, b"a.#.b"), SubjectError::Wildcard { at: 2 });
    assert_eq!(fault(Spelling::Canonical, b"a/*"), SubjectError::Wildcard { at: 2 });
    assert_eq!(fault(Spelling::Mqtt, &b"/".repeat(32_766)), SubjectError::TooDeep { levels: 32_767, levels_max: 201 });
    assert_eq!(fault(Spelling::Mqtt, &b"x".repeat(65_535)), SubjectError::TooLong { bytes_max: 8192 });
    assert_eq!(fault(Spelling::Canonical, &b"x".repeat(65_535)), SubjectError::TooLong { bytes_max: 8192 });
}

#[test]
fn filters_are_translated() {
    let table: [(Spelling, &str, &str); 15] = [
        (Spelling::Mqtt, "sport/+/player/#", "sport/*/player/#"),
        (Spelling::Mqtt, "+", "*"),
        (Spelling::Mqtt, "#", "#"),
        (Spelling::Mqtt, "/+", "/*"),
        (Spelling::Mqtt, "a/*/>/x*", "a/%2A/%3E/x%2A"),
        (Spelling::Mqtt, "%23/#", "%23/#"),
        (Spelling::Nats, "foo.*.>", "foo/*/>"),
        (Spelling::Nats, "a*.>b.%2A", "a%2A/>b/%2A"),
        (Spelling::Nats, "%00.*", "/*"),
        (Spelling::Nats, "#.+", "%23/+"),
        (Spelling::Amqp, "#.a.*.#", "#/a/*/#"),
        (Spelling::Amqp, "", ""),
        (Spelling::Amqp, "a..>", "a//%3E"),
        (Spelling::Amqp, "a#.b*", "a#/b%2A"),
        (Spelling::Canonical, "a/pre*/#/>", "a/pre*/#/>"),
    ];
    for (spelling, text, canonical) in table {
        let filter = spelling.filter(text.as_bytes()).unwrap();
        assert_eq!(filter.as_str(), canonical, "{spelling:?} {text}");
        assert_eq!(spelling.filter_text(&filter).as_deref(), Some(text), "{spelling:?}");
    }
}

#[test]
fn filters_that_a_protocol_forbids_are_refused() {
    let table: [(Spelling, &str, SubjectError); 12] = [
        (Spelling::Mqtt, "sport/#/ranking", SubjectError::Wildcard { at: 6 }),
        (Spelling::Mqtt, "sport/tennis#", SubjectError::Wildcard { at: 12 }),
        (Spelling::Mqtt, "sport+", SubjectError::Wildcard { at: 5 }),
        (Spelling::Mqtt, "a/+b/c", SubjectError::Wildcard { at: 2 }),
        (Spelling::Mqtt, "##", SubjectError::Wildcard { at: 0 }),
        (Spelling::Mqtt, "", SubjectError::EmptyLevel { at: 0 }),
        (Spelling::Mqtt, "a\0", SubjectError::Character { at: 1 }),
        (Spelling::Nats, "foo.>.bar", SubjectError::Wildcard { at: 4 }),
        (Spelling::Nats, "foo..bar", SubjectError::EmptyLevel { at: 4 }),
        (Spelling::Nats, "", SubjectError::EmptyLevel { at: 0 }),
        (Spelling::Nats, "a b", SubjectError::Character { at: 1 }),
        (Spelling::Canonical, ">/a", SubjectError::Wildcard { at: 0 }),
    ];
    for (spelling, text, error) in table {
        assert_eq!(spelling.filter(text.as_bytes()), Err(error), "{spelling:?} {text}");
    }
    let deep = b"+/".repeat(32_767);
    assert_eq!(Spelling::Mqtt.filter(&deep[..65_533]), Err(SubjectError::TooDeep { levels: 32_767, levels_max: 202 }));
}

#[test]
fn filters_go_where_their_wildcards_exist() {
    let texts = |text| Spelling::ALL.map(|spelling| spelling.filter_text(&Filter::parse(text).unwrap()));
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(texts("a/*"), [some("a/*"), some("a/+"), some("a.*"), some("a.*")]);
    assert_eq!(texts("a/>"), [some("a/>"), some("a/+/#"), some("a.>"), some("a.*.#")]);
    assert_eq!(texts("a/#"), [some("a/#"), some("a/#"), None, some("a.#")]);
    assert_eq!(texts("a/#/b"), [some("a/#/b"), None, None, some("a.#.b")]);
    assert_eq!(texts("a/b*"), [some("a/b*"), None, None, None]);
    assert_eq!(texts(""), [some(""), some("%00"), some("%00"), some("")]);
}

/// Parts of levels and texts that make trouble beside each other.
static PARTS: [&[u8]; 32] = [
    b"",
    b"a",
    b"%",
    b"%",
    b"25",
    b"2F",
    b"00",
    b"2A",
    b"%00",
    b"%2500",
    b"%2A",
    b"%25",
    b"%2f",
    b"/",
    b".",
    b"*",
    b">",
    b"#",
    b"+",
    b" ",
    b"\0",
    b"\n",
    b"$",
    b"\xC3\xA9",
    b"%C3",
    b"%A9",
    b"%25C3",
    b"%25A9",
    b"%F0%9F%98",
    b"%80",
    b"\xC3",
    b"\xA9",
];

/// Of these, the ones that are UTF-8.
const TEXT_PARTS: usize = 30;

fn joined(parts: &'static [&'static [u8]], count: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(parts), 0..count).prop_map(|parts| parts.concat())
}

/// What the protocols' own specifications say of a name, in the plainest words.
fn is_valid(spelling: Spelling, text: &[u8]) -> bool {
    let has = |bytes: &[u8]| text.iter().any(|byte| bytes.contains(byte));
    let mut levels = text.split(|&byte| byte == if matches!(spelling, Spelling::Nats | Spelling::Amqp) { b'.' } else { b'/' });
    match spelling {
        Spelling::Canonical => !levels.any(|level| level.ends_with(b"*") || level == b">" || level == b"#"),
        Spelling::Mqtt => !text.is_empty() && !has(b"+#\0"),
        Spelling::Nats => !has(b" \t\r\n\x0C\0") && !levels.any(|level| level.is_empty() || level == b"*" || level == b">"),
        Spelling::Amqp => !has(b"\0") && !levels.any(|level| level == b"*" || level == b"#"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn every_subject_comes_back(levels in prop::collection::vec(joined(&PARTS, 6), 1..5)) {
        let subject = Subject::from_levels(levels.iter().map(Vec::as_slice)).unwrap();
        let raw: Vec<Vec<u8>> = subject.raw_levels().map(|level| level.into_owned()).collect();
        prop_assert_eq!(raw, levels);
        for spelling in Spelling::ALL {
            let text = spelling.subject_text(&subject);
            prop_assert!(is_valid(spelling, text.as_bytes()), "{spelling:?} {text:?}");
            prop_assert_eq!(spelling.subject(text.as_bytes()), Ok(subject.clone()), "{:?} {:?}", spelling, text);
        }
    }

    #[test]
    fn every_text_comes_back(text in joined(&PARTS[..TEXT_PARTS], 8)) {
        for spelling in Spelling::ALL {
            let subject = spelling.subject(&text);
            prop_assert_eq!(subject.is_ok(), is_valid(spelling, &text), "{:?}", spelling);
            if let Ok(subject) = subject {
                prop_assert_eq!(spelling.subject_text(&subject).into_bytes(), text.clone(), "{:?} {:?}", spelling, subject);
            }
        }
    }

    #[test]
    fn filters_come_back_and_match_in_every_spelling(
        text in joined(&PARTS[..TEXT_PARTS], 8),
        levels in prop::collection::vec(joined(&PARTS, 2), 1..4),
    ) {
        let subject = Subject::from_levels(levels.iter().map(Vec::as_slice)).unwrap();
        for spelling in Spelling::ALL {
            let Ok(filter) = spelling.filter(&text) else { continue };
            let own = spelling.filter_text(&filter);
            prop_assert_eq!(own.as_deref().map(str::as_bytes), Some(&text[..]), "{:?}", spelling);
            for other in Spelling::ALL {
                let Some(text) = other.filter_text(&filter) else { continue };
                let again = other.filter(text.as_bytes()).unwrap().with_reserved(filter.reserved());
                let literal = filter.levels().iter().all(|level| matches!(level, FilterLevel::Literal(_)));
                prop_assert!(!literal || again == filter, "{:?} {}", other, text);
                prop_assert_eq!(again.matches(&subject), filter.matches(&subject), "{:?} {}", other, text);
            }
        }
    }
}

/// All short levels over a small alphabet: no two subjects share a text, and every short text is some subject's.
#[test]
fn short_texts_and_subjects_correspond_one_to_one() {
    let letters = [&b"%"[..], b"25", b"00", b"2E", b"C3", b"A9", b".", b"/", b"*", b"\0", b"\xC3", b"\xA9"];
    let mut levels: Vec<Vec<u8>> = vec![Vec::new()];
    let mut from = 0;
    for _ in 0..4 {
        let end = levels.len();
        for index in from..end {
            let longer: Vec<Vec<u8>> = letters.iter().map(|letter| [&levels[index][..], letter].concat()).collect();
            levels.extend(longer);
        }
        from = end;
    }
    for spelling in Spelling::ALL {
        let mut texts = HashMap::new();
        for level in &levels {
            let subject = Subject::from_levels([&level[..]]).unwrap();
            let text = spelling.subject_text(&subject);
            let earlier = texts.insert(text.clone(), subject.clone()).filter(|earlier| *earlier != subject);
            assert_eq!(earlier, None, "{spelling:?} {text}");
        }
        for text in &levels {
            let expected = is_valid(spelling, text) && std::str::from_utf8(text).is_ok();
            let subject = spelling.subject(text);
            assert_eq!(subject.is_ok(), expected, "{spelling:?} {text:?}");
            assert!(subject.is_ok_and(|subject| spelling.subject_text(&subject).as_bytes() == text) || !expected, "{spelling:?} {text:?}");
        }
    }
}

#[test]
fn mutated_texts_do_no_harm() {
    let seed: u64 = 0x5EED_0004;
    println!("seed={seed:#x}");
    let mut state = seed;
    let mut dice = |sides: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % sides as u64).unwrap()
    };
    let pairs = b"25".repeat(4000);
    for text in [&b"#/".repeat(100), &b"%25".repeat(2700), &b"%C3".repeat(2000), &[b"%", &pairs[..], b"2F"].concat()] {
        fuzz_decode(text);
    }
    for _ in 0..20_000 {
        let count = dice(12);
        let mut text: Vec<u8> = (0..count).flat_map(|_| PARTS[dice(PARTS.len())].iter().copied()).collect();
        for _ in 0..dice(3) {
            if !text.is_empty() {
                let at = dice(text.len());
                text[at] = u8::try_from(dice(256)).unwrap();
            }
        }
        fuzz_decode(&text);
    }
}
