//! The bucket's store against a back end that fails on demand.

use std::collections::VecDeque;
use std::fmt;
use std::io::ErrorKind;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result,
};

use crate::bucket::{BucketStore, Patience};
use crate::store::Store;

/// What happens to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// A 503 or a lost connection: not applied.
    Refused,
    /// Applied, and the answer lost.
    Lost,
    /// Applied, and never answered.
    Silent,
    /// S3's 409 between two puts that met: nobody's is applied.
    Conflict,
    /// Somebody else's object appears first, and then the request is lost.
    Overtaken,
    Forbidden,
}

/// Memory behind faults: each request takes the next one.
#[derive(Debug, Default)]
struct Faulty {
    memory: InMemory,
    puts: Mutex<VecDeque<Fault>>,
    gets: Mutex<VecDeque<Fault>>,
    deaf: bool,
}

impl fmt::Display for Faulty {
    fn fmt(&self, into: &mut fmt::Formatter<'_>) -> fmt::Result {
        into.write_str("faulty memory")
    }
}

fn generic() -> Error {
    Error::Generic { store: "faulty", source: "503 Slow Down".into() }
}

async fn fail<T>(fault: Fault, path: &Path) -> Result<T> {
    match fault {
        Fault::Silent => std::future::pending().await,
        Fault::Conflict => Err(Error::AlreadyExists { path: path.to_string(), source: "409".into() }),
        Fault::Forbidden => Err(Error::PermissionDenied { path: path.to_string(), source: "403".into() }),
        Fault::Refused | Fault::Lost | Fault::Overtaken => Err(generic()),
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, path: &Path, payload: PutPayload, mut options: PutOptions) -> Result<PutResult> {
        assert_eq!(options.mode, PutMode::Create, "nothing is ever overwritten");
        if self.deaf {
            options.mode = PutMode::Overwrite;
        }
        let fault = self.puts.lock().expect("no test panics with it").pop_front();
        match fault {
            Some(Fault::Lost | Fault::Silent) => drop(self.memory.put_opts(path, payload, options).await?),
            Some(Fault::Overtaken) => drop(self.memory.put_opts(path, PutPayload::from_static(b"another's"), options).await?),
            Some(_) => {}
            None => return self.memory.put_opts(path, payload, options).await,
        }
        fail(fault.expect("matched above"), path).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        let fault = self.gets.lock().expect("no test panics with it").pop_front();
        match fault {
            Some(fault) => fail(fault, path).await,
            None => self.memory.get_opts(path, options).await,
        }
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(generic())
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.memory.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.memory.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.memory.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(generic())
    }
}

fn patience() -> Patience {
    Patience { one_try: Duration::from_millis(100), call: Duration::from_millis(1500), pause: Duration::from_millis(1) }
}

fn store(puts: &[Fault], gets: &[Fault]) -> BucketStore {
    over(Faulty { puts: Mutex::new(puts.iter().copied().collect()), gets: Mutex::new(gets.iter().copied().collect()), ..Faulty::default() })
}

fn over(client: Faulty) -> BucketStore {
    BucketStore::over(Arc::new(client), "/one/two/", patience(), patience()).expect("a runtime")
}

fn kind<T: fmt::Debug>(result: std::io::Result<T>) -> ErrorKind {
    result.expect_err("a failure").kind()
}

#[test]
fn objects_come_back_as_they_went() {
    let store = store(&[], &[]);
    assert_eq!(store.get("seg/1").expect("works"), None);
    assert_eq!(store.size("seg/1").expect("works"), None);
    assert_eq!(kind(store.get_range("seg/1", 0, 1)), ErrorKind::NotFound);
    assert_eq!(kind(store.get_range("seg/1", 0, 0)), ErrorKind::NotFound);
    store.put("seg/1", b"0123456789").expect("works");
    store.put("seg/12", b"").expect("works");
    store.put("set/1", b"x").expect("works");
    assert_eq!(store.get("seg/1").expect("works").as_deref(), Some(&b"0123456789"[..]));
    assert_eq!(store.get("seg/12").expect("works").as_deref(), Some(&b""[..]));
    assert_eq!(store.size("seg/1").expect("works"), Some(10));
    assert_eq!(store.get_range("seg/1", 3, 4).expect("works"), &b"3456"[..]);
    assert_eq!(store.get_range("seg/1", 10, 0).expect("works"), &b""[..]);
    for (at, bytes) in [(3, 8), (10, 1), (11, 0), (50, 5), (u64::MAX, 2)] {
        assert_eq!(kind(store.get_range("seg/1", at, bytes)), ErrorKind::UnexpectedEof, "{at} {bytes}");
    }
    assert_eq!(store.list("").expect("works"), ["seg/1", "seg/12", "set/1"]);
    assert_eq!(store.list("se").expect("works"), ["seg/1", "seg/12", "set/1"]);
    assert_eq!(store.list("seg/1").expect("works"), ["seg/1", "seg/12"]);
    assert_eq!(store.list("none/").expect("works"), Vec::<String>::new());
    store.delete("seg/1").expect("works");
    store.delete("seg/1").expect("deleted already");
    assert_eq!(store.list("seg/").expect("works"), ["seg/12"]);
    assert_eq!(kind(store.put("seg//1", b"")), ErrorKind::InvalidInput);
}

#[test]
fn a_put_whose_answer_was_lost_succeeds_once() {
    for faults in
        [&[Fault::Lost][..], &[Fault::Silent], &[Fault::Refused, Fault::Lost, Fault::Refused], &[Fault::Conflict], &[Fault::Refused]]
    {
        let store = store(faults, &[]);
        store.put("a", b"mine").expect("the read back shows it");
        assert_eq!(store.get("a").expect("works").as_deref(), Some(&b"mine"[..]), "{faults:?}");
        assert_eq!(kind(store.put("a", b"mine")), ErrorKind::AlreadyExists, "this call did not make it");
    }
    // The read that settles it may fail too.
    let store = store(&[Fault::Lost], &[Fault::Refused, Fault::Silent]);
    store.put("a", b"mine").expect("the read back shows it");
}

#[test]
fn a_lost_race_is_not_taken_for_ones_own() {
    let store = store(&[Fault::Overtaken], &[]);
    assert_eq!(kind(store.put("a", b"mine")), ErrorKind::AlreadyExists);
    assert_eq!(store.get("a").expect("works").as_deref(), Some(&b"another's"[..]));
}

#[test]
fn reads_are_tried_again() {
    let store = store(&[], &[Fault::Refused, Fault::Silent, Fault::Refused]);
    store.put("a", b"abc").expect("works");
    assert_eq!(store.get_range("a", 1, 2).expect("works"), Bytes::from_static(b"bc"));
}

#[test]
fn patience_ends() {
    let store = store(&[Fault::Refused; 100_000], &[Fault::Silent; 100]);
    let error = store.put("a", b"abc").expect_err("no put works");
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert!(error.to_string().contains("put one/two/a") && error.to_string().contains("503"), "{error}");
    assert_eq!(kind(store.get("a")), ErrorKind::TimedOut);
}

#[test]
fn what_cannot_work_is_not_tried_again() {
    let store = store(&[Fault::Forbidden], &[Fault::Forbidden]);
    assert_eq!(kind(store.put("a", b"abc")), ErrorKind::PermissionDenied);
    assert_eq!(kind(store.get("a")), ErrorKind::PermissionDenied);
    store.put("a", b"abc").expect("the next call works");
}

#[test]
fn many_threads_share_a_store() {
    let store = &store(&[], &[]);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            scope.spawn(move || {
                for turn in 0..50 {
                    let name = format!("{thread}/{turn}");
                    store.put(&name, name.as_bytes()).expect("works");
                    assert_eq!(store.get(&name).expect("works").as_deref(), Some(name.as_bytes()));
                }
            });
        }
    });
    assert_eq!(store.list("").expect("works").len(), 400);
}

#[test]
fn the_probe_takes_a_store_that_is_as_it_must_be() {
    store(&[Fault::Lost], &[]).probe().expect("fit");
    crate::store::MemoryStore::default().list("").expect("works");
    crate::probe::probe(&crate::store::MemoryStore::default()).expect("fit");
}

#[test]
fn the_probe_refuses_a_store_that_overwrites() {
    let error = over(Faulty { deaf: true, ..Faulty::default() }).probe().expect_err("not fit");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("If-None-Match"), "{error}");
}
