//! Tests of filters, against a matcher that is plain to see.

use proptest::prelude::*;

use crate::filter::{Filter, FilterLevel, Reserved, levels_match};
use crate::spelling::Spelling;
use crate::subject::{Subject, SubjectError};

fn subject(text: &str) -> Subject {
    Subject::parse(text).unwrap()
}

fn check(filter: &str, yes: &[&str], no: &[&str]) {
    let filter = Filter::parse(filter).unwrap();
    assert_eq!(Filter::parse(filter.as_str()), Ok(filter.clone()));
    for text in yes {
        assert!(filter.matches(&subject(text)), "{filter} should match {text:?}");
    }
    for text in no {
        assert!(!filter.matches(&subject(text)), "{filter} should not match {text:?}");
    }
}

#[test]
fn wildcards_match_what_they_say() {
    check("a/b", &["a/b"], &["a", "a/b/", "a/b/c", "A/b", ""]);
    check("a/*", &["a/b", "a/", "a/$b"], &["a", "a/b/c", "b/a"]);
    check("a/pre*/z", &["a/pre/z", "a/prefix/z"], &["a/pr/z", "a/xpre/z", "a/pre/y/z"]);
    check("a/>", &["a/b", "a/b/c", "a/"], &["a", "ab", "b/a"]);
    check("a/#", &["a", "a/", "a/b", "a/b/c"], &["ab", "b/a"]);
    check("#", &["a", "", "a/b"], &[]);
    check("*", &["a", ""], &["a/b", "/"]);
    check("#/z", &["z", "a/z", "a/z/z"], &["a", "z/a", "az"]);
    check("a/#/z", &["a/z", "a/b/z", "a/z/z", "a/b/c/z"], &["a", "z", "a/z/b"]);
    check("a/#/b/#/c", &["a/b/c", "a/x/b/y/c", "a/b/b/c/c"], &["a/c/b", "a/b", "a/c"]);
    check("#/>", &["a", "a/b"], &[]);
    check("a/#/>", &["a/b", "a/b/c"], &["a", "b"]);
    check("a/#/*", &["a/b", "a/b/c"], &["a"]);
    check("#/#/#", &["a", "a/b", ""], &[]);
    check("", &[""], &["a", "/"]);
    check("a*b/>c/#d", &["a*b/>c/#d"], &["axb/>c/#d"]);
    check("%2A/a%2A/%23", &["%2A/a%2A/%23"], &["x/ab/y"]);
}

#[test]
fn prefixes_match_bytes() {
    check("x/a**", &["x/a%2A", "x/a*b"], &["x/a", "x/ab"]);
    check("x%2F*", &["x%2Fy", "x%2F"], &["x/y", "x%252Fy"]);
    check("x%252F*", &["x%252Fy"], &["x%2Fy"]);
    assert_eq!(Filter::parse(">*").unwrap().levels(), [FilterLevel::Prefix(b">"[..].into())]);
}

#[test]
fn reserved_subjects_are_hidden_from_leading_wildcards() {
    let matches = |filter: &str, reserved, text: &str| Filter::parse(filter).unwrap().with_reserved(reserved).matches(&subject(text));
    for filter in [">", "#", "*/a", "#/a", "*/>"] {
        for (text, dollar, underscore) in [("$x/a", true, true), ("_x/a", false, true), ("x/$y/a", false, false)] {
            if filter == "*/a" && text == "x/$y/a" {
                continue;
            }
            assert!(matches(filter, Reserved::Matched, text), "{filter} {text}");
            assert_eq!(matches(filter, Reserved::DollarHidden, text), !dollar, "{filter} {text}");
            assert_eq!(matches(filter, Reserved::Hidden, text), !underscore, "{filter} {text}");
        }
    }
    for filter in ["$x/>", "$*/a", "$x/*", "$x/#"] {
        assert!(matches(filter, Reserved::Hidden, "$x/a"), "{filter}");
    }
    assert_eq!(Filter::parse(">").unwrap().reserved(), Reserved::Hidden);
    assert_eq!(Spelling::Mqtt.filter(b"#").unwrap().reserved(), Reserved::DollarHidden);
}

#[test]
fn faults_are_told_with_their_place() {
    assert_eq!(Filter::parse("a/>/b"), Err(SubjectError::Wildcard { at: 2 }));
    assert!(Filter::parse(&"/".repeat(201)).is_ok());
    assert_eq!(Filter::parse(&"/".repeat(202)), Err(SubjectError::TooDeep { levels: 203, levels_max: 202 }));
    assert!(Filter::parse(&format!("{}/#", "x".repeat(8192))).is_ok());
    assert_eq!(Filter::parse(&"x".repeat(8195)), Err(SubjectError::TooLong { bytes_max: 8194 }));
    assert_eq!(Filter::from_text(b"a\xFF"[..].into()), Err(SubjectError::NotUtf8 { at: 1 }));
}

/// The example that every user will try: subjects, filters, and which filter matches which subjects.
const SUBJECTS: [&str; 3] = [
    "order/init/1.1/icecream/udders/rumraisin/sg/lazada",
    "order/valid/1.1/icecream/udders/rumraisin/sg/lazada",
    "order/shipped/1.1/icecream/udders/rumraisin/sg/lazada",
];

#[test]
fn examples_give_the_expected_sets_in_every_syntax() {
    let table: [(&str, Spelling, &[usize]); 15] = [
        ("order/init/1.1/>", Spelling::Canonical, &[0]),
        ("order/init/1.1/#", Spelling::Mqtt, &[0]),
        ("order.init.1%2E1.>", Spelling::Nats, &[0]),
        ("order.init.1%2E1.#", Spelling::Amqp, &[0]),
        ("order/valid/*/icecream/*/*/sg/*", Spelling::Canonical, &[1]),
        ("order/valid/+/icecream/+/+/sg/+", Spelling::Mqtt, &[1]),
        ("order.valid.*.icecream.*.*.sg.*", Spelling::Nats, &[1]),
        ("order.valid.*.icecream.*.*.sg.*", Spelling::Amqp, &[1]),
        ("order/>", Spelling::Canonical, &[0, 1, 2]),
        ("order/#", Spelling::Mqtt, &[0, 1, 2]),
        ("order.>", Spelling::Nats, &[0, 1, 2]),
        ("order.#", Spelling::Amqp, &[0, 1, 2]),
        ("order/*/1.*/#/sg/lazada", Spelling::Canonical, &[0, 1, 2]),
        ("order.#.sg.*", Spelling::Amqp, &[0, 1, 2]),
        ("order/+", Spelling::Mqtt, &[]),
    ];
    for (text, spelling, expected) in table {
        let filter = spelling.filter(text.as_bytes()).unwrap();
        assert_eq!(spelling.filter_text(&filter).as_deref(), Some(text));
        for publisher in Spelling::ALL {
            let texts = SUBJECTS.map(|text| publisher.subject_text(&subject(text)));
            let subjects = texts.map(|text| publisher.subject(text.as_bytes()).unwrap());
            let found: Vec<usize> = (0..3).filter(|&index| filter.matches(&subjects[index])).collect();
            assert_eq!(found, expected, "{text} of {spelling:?}, published by {publisher:?}");
        }
    }
}

#[test]
fn hostile_filters_take_few_steps() {
    let deep = subject(&vec!["a"; 201].join("/"));
    for (text, expected) in [
        (vec!["#"; 202].join("/"), true),
        (format!("{}/b", vec!["#"; 201].join("/")), false),
        (format!("{}/b", vec!["#/a"; 100].join("/")), false),
        (format!("{}/b", vec!["#/*"; 100].join("/")), false),
        (format!("{}/>", vec!["#/*"; 100].join("/")), true),
        (format!("#/{}/b", vec!["a"; 100].join("/")), false),
        (format!("#/{}/b/#", vec!["*"; 198].join("/")), false),
    ] {
        let filter = Filter::parse(&text).unwrap();
        let mut steps = 0;
        assert_eq!(levels_match(filter.levels(), deep.as_bytes(), &mut steps), expected, "{text}");
        assert!(steps <= 202 * 202, "{steps} steps for {text}");
    }
}

fn naive(filter: &[FilterLevel], levels: &[Vec<u8>]) -> bool {
    let Some((first, behind)) = filter.split_first() else { return levels.is_empty() };
    let one = |fits: &dyn Fn(&[u8]) -> bool| !levels.is_empty() && fits(&levels[0]) && naive(behind, &levels[1..]);
    match first {
        FilterLevel::Any => (0..=levels.len()).any(|skipped| naive(behind, &levels[skipped..])),
        FilterLevel::Rest => !levels.is_empty(),
        FilterLevel::One => one(&|_| true),
        FilterLevel::Prefix(prefix) => one(&|level| level.starts_with(prefix)),
        FilterLevel::Literal(text) => one(&|level| crate::subject::raw_level(text) == level),
    }
}

fn levels() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let level = prop::sample::select(vec![&b""[..], b"a", b"b", b"ab", b"a/", b"a*", b"%2F", b"\xC3\xA9", b"\xC3", b"#"]);
    prop::collection::vec(level.prop_map(<[u8]>::to_vec), 1..8)
}

fn filter_text() -> impl Strategy<Value = String> {
    let level =
        prop::sample::select(vec!["", "a", "b", "ab", "a%2F", "a%2A", "%252F", "é", "%C3", "%23", "#", "#", "*", "a*", "%C3*", "a%2*"]);
    (prop::collection::vec(level, 1..8), any::<bool>())
        .prop_map(|(levels, rest)| if rest { format!("{}/>", levels.join("/")) } else { levels.join("/") })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn matches_what_the_naive_matcher_matches(text in filter_text(), levels in levels()) {
        let filter = Filter::parse(&text).unwrap().with_reserved(Reserved::Matched);
        let subject = Subject::from_levels(levels.iter().map(Vec::as_slice)).unwrap();
        let mut steps = 0;
        prop_assert_eq!(levels_match(filter.levels(), subject.as_bytes(), &mut steps), naive(filter.levels(), &levels));
        prop_assert!(steps <= (filter.levels().len() + 1) * (levels.len() + 2), "{} steps", steps);
    }
}
