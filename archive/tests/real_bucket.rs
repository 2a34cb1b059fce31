//! The bucket's store against a real server, when there is one.
//!
//! `FIRTH_TEST_ENDPOINT` and `FIRTH_TEST_BUCKET` name it, the usual variables hold its credentials; `clients/test_tiered.py` sets them.

use std::env;
use std::io::ErrorKind;

use firth_archive::bucket::{BucketOptions, BucketStore};
use firth_archive::store::Store;

#[test]
fn a_real_bucket_is_fit_and_keeps_large_objects() {
    let (Ok(endpoint), Ok(bucket)) = (env::var("FIRTH_TEST_ENDPOINT"), env::var("FIRTH_TEST_BUCKET")) else {
        println!("no FIRTH_TEST_ENDPOINT: nothing to test against");
        return;
    };
    let variable = |name| env::var(name).unwrap_or_default();
    let options = BucketOptions {
        bucket,
        prefix: format!("rust-{}", uuid::Uuid::new_v4().simple()),
        endpoint,
        region: "us-east-1".to_owned(),
        key_id: variable("AWS_ACCESS_KEY_ID"),
        secret: variable("AWS_SECRET_ACCESS_KEY"),
        session: variable("AWS_SESSION_TOKEN"),
    };
    let store = BucketStore::open(&options).expect("a client");
    store.probe().expect("fit");
    let large: Vec<u8> = (0..32_u32 << 20).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    store.put("seg/large", &large).expect("a put of 32 MiB");
    assert_eq!(store.put("seg/large", &large).expect_err("it is there").kind(), ErrorKind::AlreadyExists);
    assert_eq!(store.size("seg/large").expect("works"), Some(32 << 20));
    assert!(store.get("seg/large").expect("works").expect("is there") == large);
    for at in [0, 1, 9_999_999, (32 << 20) - 100_000] {
        let part = store.get_range("seg/large", at as u64, 100_000).expect("a part");
        assert!(part == large[at..at + 100_000], "{at}");
    }
    for (at, bytes) in [((32 << 20) - 1, 2), (32 << 20, 1), (1 << 40, 5)] {
        assert_eq!(store.get_range("seg/large", at, bytes).expect_err("beyond").kind(), ErrorKind::UnexpectedEof, "{at} {bytes}");
    }
    assert_eq!(store.get_range("seg/none", 0, 1).expect_err("none").kind(), ErrorKind::NotFound);
    assert_eq!(store.size("seg/none").expect("works"), None);
    // More than one page of a listing.
    let names: Vec<String> = (0..1_100).map(|number| format!("many/{number:05}")).collect();
    std::thread::scope(|scope| {
        for chunk in names.chunks(140) {
            let store = &store;
            scope.spawn(move || chunk.iter().for_each(|name| store.put(name, b"x").expect("a small put")));
        }
    });
    assert!(store.list("many/").expect("works") == names);
    assert_eq!(store.list("many/0109").expect("works").len(), 10);
    for name in store.list("").expect("works") {
        store.delete(&name).expect("works");
    }
    assert!(store.list("").expect("works").is_empty());
    let missing = BucketStore::open(&BucketOptions { bucket: "no-such-bucket".to_owned(), ..options.clone() }).expect("a client");
    assert_eq!(missing.get("seg/1").expect_err("not `None`: nobody knows").kind(), ErrorKind::Other);
    assert_eq!(missing.size("seg/1").expect_err("not `None`: nobody knows").kind(), ErrorKind::Other);
    assert_eq!(missing.get_range("seg/1", 0, 1).expect_err("not `NotFound`").kind(), ErrorKind::Other);
    let wrong = BucketOptions { secret: "not this".to_owned(), ..options };
    let refused = BucketStore::open(&wrong).expect("a client").probe().expect_err("a wrong secret");
    assert_eq!(refused.kind(), ErrorKind::PermissionDenied, "{refused}");
}
