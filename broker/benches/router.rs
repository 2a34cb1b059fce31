//! What a match costs, also among hostile filters.
//!
//! `cargo bench -p firth-broker --bench router`. Prints first what a filter costs: by the router's own count, and by what the process
//! grew.

use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};

use firth_broker::router::cache::Cache;
use firth_broker::router::routes::Router;
use firth_broker::router::token::Token;
use firth_broker::router::walk::Scratch;
use firth_model::filter::Filter;
use firth_model::subject::Subject;

const FILTERS: u64 = 1_000_000;

fn filter(text: &str) -> Filter {
    Filter::parse(text).expect("a filter")
}

fn subject(text: &str) -> Subject {
    Subject::parse(text).expect("a subject")
}

/// Devices of a fleet: what people subscribe to, with one wildcard in three.
fn fleet(number: u64) -> Filter {
    let (region, device) = (number % 40, number * 7_919 % FILTERS);
    filter(&match number % 3 {
        0 => format!("fleet/region-{region}/device-{device:07}/engine/celsius"),
        1 => format!("fleet/region-{region}/device-{device:07}/*/state"),
        _ => format!("fleet/region-{region}/device-{device:07}/#"),
    })
}

fn router_of(filters: impl Iterator<Item = Filter>) -> Router {
    let router = Router::default();
    for (id, filter) in filters.enumerate() {
        router.subscribe(&filter, Token::live(id as u64));
    }
    router
}

/// Resident bytes of this process.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: usize = text.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("pages");
    pages * 4096
}

fn sizes() {
    for (name, make) in [
        ("fleet", &fleet as &dyn Fn(u64) -> Filter),
        ("alone", &|number| filter(&format!("{number:016x}/state"))),
        ("two wildcards", &|number| filter(&format!("site/{number:08}/*/pump/#/alarm/*"))),
        ("uuid", &|number| filter(&format!("tenant/{:08x}-0000-4000-8000-{number:012x}/inbox/>", number * 7_919))),
        ("prefix", &|number| filter(&format!("site/{}/{number:08}*/state", number % 1000))),
    ] {
        let before = resident();
        let empty = Router::default().bytes();
        let start = Instant::now();
        let router = router_of((0..FILTERS).map(make));
        let each = start.elapsed() / FILTERS as u32;
        let (counted, grown) = (router.bytes() - empty, resident().saturating_sub(before));
        println!("{name}: {} bytes a filter counted, {} resident, {each:?} to add", counted / FILTERS as usize, grown / FILTERS as usize);
        let start = Instant::now();
        (0..FILTERS).for_each(|number| assert!(router.unsubscribe(&make(number), Token::live(number))));
        println!("{name}: {:?} to remove, {} bytes left beside {empty}", start.elapsed() / FILTERS as u32, router.bytes());
    }
}

/// The slowest match while filters come and go in the same shard as fast as they can.
fn stalls() {
    let router = router_of((0..FILTERS).map(fleet));
    let asked = subject("fleet/region-7/device-0000007/x/state");
    let mut slowest = [Duration::ZERO; 1000];
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for number in 0..300_000 {
                let filter = filter(&format!("fleet/region-7/late-{number}/#"));
                router.subscribe(&filter, Token::live(1));
            }
        });
        let (mut scratch, mut out) = (Scratch::default(), Vec::new());
        while !writer.is_finished() {
            let start = Instant::now();
            router.matches(&asked, &mut scratch, &mut out);
            out.clear();
            let taken = start.elapsed();
            let least = slowest.iter_mut().min().expect("a thousand");
            *least = taken.max(*least);
        }
    });
    slowest.sort_unstable();
    println!("slowest matches beside a writer: {:?}, the thousandth {:?}", slowest[999], slowest[0]);
}

fn usual(criterion: &mut Criterion) {
    sizes();
    stalls();
    let mut group = criterion.benchmark_group("router");
    let router = router_of((0..FILTERS).map(fleet).chain(["#", "fleet/*/*/#/state", "*/region-7/#"].map(filter)));
    let asked: Vec<Subject> = (0..100_000u64)
        .map(|number| number * 10 % FILTERS)
        .map(|number| subject(&format!("fleet/region-{}/device-{:07}/x/state", number % 40, number * 7_919 % FILTERS)))
        .collect();
    let (mut scratch, mut out) = (Scratch::default(), Vec::new());
    let mut turn = 0;
    group.bench_function("a million filters, 100,000 subjects in turn", |bencher| {
        bencher.iter(|| {
            out.clear();
            turn = (turn + 1) % asked.len();
            router.matches(&asked[turn], &mut scratch, &mut out);
            out.len()
        });
    });
    let mut cache = Cache::with_bounds(1024, 1 << 20);
    group.bench_function("a million filters, a subject in the cache", |bencher| bencher.iter(|| cache.matches(&router, &asked[1]).len()));
    group.finish();
}

/// Sixteen levels from the bits of a number.
fn bits(number: u64, zero: &str, one: &str) -> String {
    let levels: Vec<&str> = (0..17).map(|bit| if number >> bit & 1 == 0 { zero } else { one }).collect();
    levels.join("/")
}

fn hostile(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("hostile");
    group.sample_size(10);
    let deep = vec!["a"; 200].join("/");
    let sets: [(&str, &dyn Fn(u64) -> String); 7] = [
        ("wildcards only, all match", &|number| bits(number, "*", "#")),
        ("wildcards only and a literal that is not there", &|number| format!("{}/b", bits(number, "*", "#"))),
        ("literals and wildcards, no hash", &|number| format!("{}/{}", vec!["*"; 180].join("/"), bits(number, "*", "a"))),
        ("behind a hash", &|number| format!("#/{}/b", bits(number, "*", "a"))),
        ("between hashes", &|number| format!("#/{}/#/b", bits(number, "*", "a"))),
        ("a hash or a level, each time", &|number| format!("{}/b", bits(number, "#/a", "a"))),
        ("prefixes", &|number| format!("{}/b", bits(number, "a*", "#"))),
    ];
    for (name, make) in sets {
        let router = router_of((0..100_000).map(|number| filter(&make(number))));
        let (mut scratch, mut out) = (Scratch::default(), Vec::new());
        for (length, asked) in [("17 levels", subject(&deep[..33])), ("200 levels", subject(&deep))] {
            group.bench_function(format!("{name}, {length}"), |bencher| {
                bencher.iter(|| {
                    out.clear();
                    router.matches(&asked, &mut scratch, &mut out);
                    out.len()
                });
            });
            println!("{} tokens", out.len());
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    targets = usual, hostile
}
criterion_main!(benches);
