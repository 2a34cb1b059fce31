//! The router beside a loop over all filters.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use firth_model::filter::{Filter, Reserved};
use firth_model::subject::Subject;
use proptest::prelude::*;

use super::cache::Cache;
use super::routes::Router;
use super::token::{Token, TokenKind};
use super::walk::Scratch;

const RULES: [Reserved; 3] = [Reserved::Matched, Reserved::DollarHidden, Reserved::Hidden];

fn filter(text: &str) -> Filter {
    Filter::parse(text).unwrap()
}

fn subject(text: &str) -> Subject {
    Subject::parse(text).unwrap()
}

/// In order, with repetitions.
fn found(router: &Router, subject: &Subject) -> Vec<u64> {
    let mut tokens = Vec::new();
    router.matches(subject, &mut Scratch::default(), &mut tokens);
    let mut ids: Vec<u64> = tokens.into_iter().map(Token::id).collect();
    ids.sort_unstable();
    ids
}

fn found_at(router: &Router, text: &str) -> Vec<u64> {
    found(router, &subject(text))
}

#[test]
fn the_examples_of_the_manual_match_as_shown() {
    let router = Router::default();
    for (id, text) in [(1, "order/init/1.1/>"), (2, "order/valid/*/icecream/*/*/sg/*"), (3, "order/>"), (4, "ord*/#/lazada"), (5, "#")] {
        assert!(router.subscribe(&filter(text), Token::live(id)));
    }
    let tail = "1.1/icecream/udders/rumraisin/sg/lazada";
    assert_eq!(found_at(&router, &format!("order/init/{tail}")), [1, 3, 4, 5]);
    assert_eq!(found_at(&router, &format!("order/valid/{tail}")), [2, 3, 4, 5]);
    assert_eq!(found_at(&router, &format!("order/shipped/{tail}")), [3, 4, 5]);
    assert_eq!(found_at(&router, "order"), [5]);
    assert!(found_at(&router, "$order").is_empty());
}

#[test]
fn a_token_stands_at_a_filter_once_and_filters_that_match_alike_are_apart() {
    let router = Router::default();
    let alike = ["a/*/#", "a/#/*", "a/#/#/*", "a/#/*/#", "a/>"];
    for text in alike {
        assert!(router.subscribe(&filter(text), Token::live(1)));
        assert!(!router.subscribe(&filter(text), Token::live(1)));
        assert!(!router.unsubscribe(&filter(text), Token::capture(1)));
    }
    for (count, text) in alike.iter().enumerate().rev() {
        assert_eq!(found_at(&router, "a/b/c"), vec![1; count + 1]);
        assert!(router.unsubscribe(&filter(text), Token::live(1)));
        assert!(!router.unsubscribe(&filter(text), Token::live(1)));
    }
    assert_eq!(Token::capture(7).kind(), TokenKind::Capture);
    assert_eq!(Token::live(7).kind(), TokenKind::Live);
    assert_ne!(Token::capture(7), Token::live(7));
}

#[test]
fn each_rule_for_reserved_subjects_is_its_own_filter() {
    let router = Router::default();
    for text in ["#", "$SYS/#", "$*/#", "_a/*"] {
        for (id, rule) in RULES.into_iter().enumerate() {
            assert!(router.subscribe(&filter(text).with_reserved(rule), Token::live(id as u64)));
        }
    }
    assert_eq!(found_at(&router, "$SYS/a"), [0, 0, 0, 1, 1, 2, 2]);
    assert_eq!(found_at(&router, "_a/b"), [0, 0, 1, 1, 2]);
    assert!(router.unsubscribe(&filter("#").with_reserved(Reserved::Matched), Token::live(0)));
    assert_eq!(found_at(&router, "$SYS/a"), [0, 0, 1, 1, 2, 2]);
}

#[test]
fn versions_change_with_what_can_concern_a_first_level_and_only_then() {
    let router = Router::default();
    let names: Vec<String> = (0..50).map(|number| format!("level{number}")).collect();
    let versions = || names.iter().map(|name| router.version(name.as_bytes())).collect::<Vec<_>>();
    let changed = |before: &[u64]| before.iter().zip(versions()).filter(|(before, after)| *before != after).count();
    let before = versions();
    assert!(!router.unsubscribe(&filter("level7/a"), Token::live(1)));
    assert_eq!(changed(&before), 0);
    assert!(router.subscribe(&filter("level7/a"), Token::live(1)));
    assert!(before[7] < versions()[7]);
    // Levels share versions by hash: of 50 levels and 4,096 versions, 3 at one have less chance than one in 10,000.
    assert!(changed(&before) <= 3);
    let before = versions();
    assert!(!router.subscribe(&filter("level7/a"), Token::live(1)));
    assert_eq!(changed(&before), 0);
    for text in ["*/a", "lev*/a", "#", ">"] {
        let before = versions();
        assert!(router.subscribe(&filter(text), Token::live(1)));
        assert_eq!(changed(&before), 50, "{text}");
        let before = versions();
        assert!(router.unsubscribe(&filter(text), Token::live(1)));
        assert_eq!(changed(&before), 50, "{text}");
    }
}

#[test]
fn a_cache_keeps_to_its_bounds_and_to_the_router() {
    let router = Router::default();
    let mut cache = Cache::with_bounds(20, 8 << 10);
    for id in 0..20 {
        router.subscribe(&filter(&format!("a/{id}/#")), Token::live(id));
    }
    for round in 0..100u64 {
        for id in 0..20 {
            let expected = if id < round.min(5) { vec![] } else { vec![Token::live(id)] };
            assert_eq!(cache.matches(&router, &subject(&format!("a/{id}/{}", "x".repeat(round as usize)))).to_vec(), expected);
            assert!(cache.entries() <= 20 && cache.bytes() <= 8 << 10);
        }
        if round < 5 {
            assert!(router.unsubscribe(&filter(&format!("a/{round}/#")), Token::live(round)));
        }
    }
    assert!(cache.entries() > 5);
    let mut small = Cache::with_bounds(20, 100);
    assert_eq!(small.matches(&router, &subject("a/9/b")).to_vec(), [Token::live(9)]);
    assert_eq!(small.entries(), 0);
}

#[test]
fn what_is_subscribed_is_found_by_every_thread_and_nothing_is_lost() {
    let router = Router::default();
    let stop = AtomicBool::new(false);
    let known = AtomicU64::new(0);
    // Asked behind a match: whether the writer, which may be far ahead of a reader, has begun to remove this one.
    let is_leaving = |id: u64| known.load(Ordering::Acquire) > id + 100;
    router.subscribe(&filter("steady/#"), Token::live(u64::MAX >> 1));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut cache = Cache::with_bounds(64, 1 << 20);
                while !stop.load(Ordering::Relaxed) {
                    let last = known.load(Ordering::Acquire);
                    assert_eq!(found_at(&router, "steady/x"), [u64::MAX >> 1]);
                    for id in last.saturating_sub(3)..last {
                        let seen = found_at(&router, &format!("moving/{id}/x")).contains(&id);
                        assert!(seen || is_leaving(id), "{id}");
                    }
                    let cached = cache.matches(&router, &subject("moving/all"));
                    assert!(last == 0 || cached.contains(&Token::live(last - 1)) || is_leaving(last - 1), "{last}");
                }
            });
        }
        for id in 0..20_000 {
            assert!(router.subscribe(&filter(&format!("moving/{id}/*")), Token::live(id)));
            assert!(router.subscribe(&filter("moving/all"), Token::live(id)));
            known.store(id + 1, Ordering::Release);
            if let Some(gone) = id.checked_sub(100) {
                assert!(router.unsubscribe(&filter(&format!("moving/{gone}/*")), Token::live(gone)));
                assert!(router.unsubscribe(&filter("moving/all"), Token::live(gone)));
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(found_at(&router, "moving/all").len(), 100);
}

#[test]
fn what_is_removed_gives_its_memory_back() {
    let router = Router::default();
    let empty = router.bytes();
    let filters: Vec<Filter> = (0..60_000u32)
        .map(|number| match number % 6 {
            0 => filter(&format!("a/{number}/b/*/c")),
            1 => filter(&format!("a/{}*/{number}/>", number % 100)),
            2 => filter(&format!("*/#/*/{number}")),
            3 => filter(&format!("{number}/a/#/b")),
            4 => filter(&format!("a/{}/b/{}", number % 1000, number / 1000)),
            _ => filter(&format!("a/{number}*/b")),
        })
        .collect();
    let subscribed = |router: &Router, id: u64| {
        for at in &filters {
            assert!(router.subscribe(at, Token::live(id)));
        }
    };
    subscribed(&router, 1);
    let full = router.bytes();
    assert!((full - empty) / filters.len() <= 200, "{full} bytes");
    subscribed(&router, 2);
    subscribed(&router, 3);
    for id in [2, 1, 3] {
        // In another order than they came.
        for step in 0..filters.len() {
            assert!(router.unsubscribe(&filters[step * 7919 % filters.len()], Token::live(id)));
        }
    }
    let left = router.bytes();
    assert!(left <= empty + 4096, "{left} bytes, {empty} when empty");
}

#[test]
fn wildcards_alone_cost_little_however_many() {
    let router = Router::default();
    let mut filters = 0;
    for number in 0..20_000u64 {
        let levels: Vec<&str> = (0..16).map(|bit| if number >> bit & 1 == 0 { "*" } else { "#" }).collect();
        filters += usize::from(router.subscribe(&filter(&levels.join("/")), Token::live(number)));
    }
    assert_eq!(filters, 20_000);
    let deep = subject(&vec!["a"; 200].join("/"));
    assert_eq!(found(&router, &deep).len(), 19_999);
    assert_eq!(found_at(&router, "a").len(), 0);
}

fn filter_texts() -> impl Strategy<Value = Filter> {
    let level = prop::sample::select(vec![
        "", "a", "b", "ab", "a%2F", "a%2A", "%252F", "é", "%C3", "%23", "#", "#", "#", "*", "*", "a*", "%C3*", "a%2*", "$s", "_s", "$*",
        "aaa*",
    ]);
    (prop::collection::vec(level, 1..7), any::<bool>(), 0..3usize).prop_map(|(levels, rest, rule)| {
        let text = if rest { format!("{}/>", levels.join("/")) } else { levels.join("/") };
        filter(&text).with_reserved(RULES[rule])
    })
}

fn subjects() -> impl Strategy<Value = Subject> {
    let level = prop::sample::select(vec![
        &b""[..],
        b"a",
        b"a",
        b"b",
        b"ab",
        b"a/",
        b"a*",
        b"%2F",
        b"\xC3\xA9",
        b"\xC3",
        b"#",
        b"$s",
        b"_s",
        b"aaaa",
    ]);
    prop::collection::vec(level, 1..7).prop_map(|levels| Subject::from_levels(levels).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn finds_what_a_loop_over_all_filters_finds(
        pool in prop::collection::vec(filter_texts(), 1..60),
        turns in prop::collection::vec((any::<prop::sample::Index>(), 0..3u64, 0..5u8), 1..200),
        asked in prop::collection::vec(subjects(), 20),
    ) {
        let router = Router::default();
        let mut naive: BTreeSet<(usize, u64)> = BTreeSet::new();
        let empty = router.bytes();
        let mut cache = Cache::with_bounds(16, 1 << 16);
        for (turn, (index, id, action)) in turns.iter().enumerate() {
            let chosen = index.index(pool.len());
            // Equal filters of the pool are one filter.
            let at = pool.iter().position(|filter| *filter == pool[chosen]).unwrap();
            if *action < 3 {
                prop_assert_eq!(router.subscribe(&pool[at], Token::live(*id)), naive.insert((at, *id)));
            } else {
                prop_assert_eq!(router.unsubscribe(&pool[at], Token::live(*id)), naive.remove(&(at, *id)));
            }
            let subject = &asked[turn % asked.len()];
            let mut expected: Vec<u64> = naive.iter().filter(|(at, _)| pool[*at].matches(subject)).map(|(_, id)| *id).collect();
            expected.sort_unstable();
            prop_assert_eq!(&found(&router, subject), &expected, "{}", subject);
            expected.dedup();
            let cached: Vec<u64> = cache.matches(&router, subject).iter().map(|token| token.id()).collect();
            prop_assert_eq!(cached, expected);
        }
        for (at, id) in naive {
            prop_assert!(router.unsubscribe(&pool[at], Token::live(id)));
        }
        prop_assert!(router.bytes() <= empty + 4096);
        for subject in &asked {
            prop_assert_eq!(found(&router, subject), Vec::<u64>::new());
        }
    }
}
