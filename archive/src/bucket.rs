//! Archive objects in an S3-compatible bucket.
//!
//! The client's own retries are off: a put whose answer was lost may have been applied, so each retry sends the same bytes, and
//! "exists already" after such a put is settled by reading back.

use std::fmt::{self, Display};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::aws::AmazonS3Builder;
use object_store::path::Path;
use object_store::{ClientOptions, Error, GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMode, PutPayload, RetryConfig};
use tokio::runtime::Runtime;
use tokio::time::{Instant, sleep, timeout};

use crate::store::Store;

/// Where a bucket is and who may use it.
#[derive(Clone, Default)]
pub struct BucketOptions {
    pub bucket: String,
    /// Before every name, without a slash at its ends; may be empty.
    pub prefix: String,
    /// Empty: Amazon's own of the region. Only one that says `http://` is spoken to without TLS.
    pub endpoint: String,
    pub region: String,
    pub key_id: String,
    pub secret: String,
    /// Of temporary credentials; may be empty.
    pub session: String,
}

impl fmt::Debug for BucketOptions {
    fn fmt(&self, into: &mut fmt::Formatter<'_>) -> fmt::Result {
        into.debug_struct("BucketOptions")
            .field("bucket", &self.bucket)
            .field("prefix", &self.prefix)
            .field("endpoint", &self.endpoint)
            .field("region", &self.region)
            .finish_non_exhaustive()
    }
}

/// How long a call may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// One try.
    pub one_try: Duration,
    /// All tries of a call together.
    pub call: Duration,
    /// The mean pause after the first failed try; it doubles from try to try.
    pub pause: Duration,
}

/// Reads are waited for by consumers, whose own patience is some thirty seconds.
const READ: Patience = Patience { one_try: Duration::from_secs(5), call: Duration::from_secs(10), pause: Duration::from_millis(50) };
/// Writes carry up to 32 MiB.
const WRITE: Patience = Patience { one_try: Duration::from_secs(15), call: Duration::from_secs(30), pause: Duration::from_millis(100) };
/// A start waits for this.
const REACH: Patience = Patience { one_try: Duration::from_secs(2), call: Duration::from_secs(4), pause: Duration::from_millis(100) };
const PAUSE_MAX: Duration = Duration::from_secs(2);
const CONNECT_MAX: Duration = Duration::from_secs(3);

/// A store in a bucket. Calls block, so they must not come from a thread that runs asynchronous tasks; many threads may call at once.
///
/// Errors: `TimedOut` when nothing worked within the patience for a call (the message has the last reason; a put may have been
/// applied), `PermissionDenied`, `InvalidInput` for names or credentials that cannot be, `Other` when the whole bucket is missing, and
/// those of the trait.
pub struct BucketStore {
    client: Arc<dyn ObjectStore>,
    prefix: String,
    read: Patience,
    write: Patience,
    /// Drives the connections; `None` only while it is dropped.
    runtime: Option<Runtime>,
}

/// What a try came to.
enum Failed {
    /// Another try may work. Whether this one was applied is not known.
    Passing(Error),
    Final(io::Error),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Failed {
        let kind = match &error {
            // Also a 404, and no word about the object.
            Error::NotFound { source, .. } if source.to_string().contains("NoSuchBucket") => io::ErrorKind::Other,
            Error::NotFound { .. } => io::ErrorKind::NotFound,
            Error::AlreadyExists { .. } => io::ErrorKind::AlreadyExists,
            Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => io::ErrorKind::PermissionDenied,
            Error::NotSupported { .. } | Error::NotImplemented { .. } => io::ErrorKind::Unsupported,
            Error::InvalidPath { .. } | Error::UnknownConfigurationKey { .. } => io::ErrorKind::InvalidInput,
            _ => return Failed::Passing(error),
        };
        Failed::Final(io::Error::new(kind, error))
    }
}

impl BucketStore {
    /// Connects to nothing yet.
    pub fn open(options: &BucketOptions) -> io::Result<BucketStore> {
        // Somebody else in this process may have chosen already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let plain = options.endpoint.starts_with("http://");
        let client_options = ClientOptions::new().with_allow_http(plain).with_connect_timeout(CONNECT_MAX).with_timeout(WRITE.one_try);
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(&options.bucket)
            .with_region(&options.region)
            .with_access_key_id(&options.key_id)
            .with_secret_access_key(&options.secret)
            .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() })
            // Some stores want a digest with a bulk deletion, or have none.
            .with_disable_bulk_delete(true)
            .with_client_options(client_options);
        if !options.session.is_empty() {
            builder = builder.with_token(&options.session);
        }
        if !options.endpoint.is_empty() {
            builder = builder.with_endpoint(&options.endpoint);
        }
        let client = builder.build().map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        BucketStore::over(Arc::new(client), &options.prefix, READ, WRITE)
    }

    pub(crate) fn over(client: Arc<dyn ObjectStore>, prefix: &str, read: Patience, write: Patience) -> io::Result<BucketStore> {
        // One worker drives all connections; what a caller waits for runs on the caller's own thread.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).thread_name("bucket").enable_all().build()?;
        Ok(BucketStore { client, prefix: prefix.trim_matches('/').to_owned(), read, write, runtime: Some(runtime) })
    }

    /// Refuses a store that does not keep what Firth relies on; see [`crate::probe::probe`].
    pub fn probe(&self) -> io::Result<()> {
        crate::probe::probe(self)
    }

    /// Whether the bucket answers at all, found out soon.
    pub fn reach(&self) -> io::Result<()> {
        let path = &self.path("reach")?;
        none_if_absent(self.block_on(self.retry("reach it", REACH, |_| self.get_once(path)))).map(|_| ())
    }

    fn path(&self, name: &str) -> io::Result<Path> {
        let whole = if self.prefix.is_empty() { name.to_owned() } else { format!("{}/{name}", self.prefix) };
        Path::parse(whole).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
    }

    fn block_on<T>(&self, call: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        match &self.runtime {
            Some(runtime) => runtime.block_on(call),
            None => Err(io::Error::other("the store is being closed")),
        }
    }

    /// Tries until it worked, cannot work, or took too long.
    async fn retry<T, F: Future<Output = Result<T, Failed>>>(
        &self,
        what: impl Display,
        patience: Patience,
        attempt: impl Fn(bool) -> F,
    ) -> io::Result<T> {
        let began = Instant::now();
        let mut pause = patience.pause;
        let mut repeated = false;
        loop {
            let left = patience.call.saturating_sub(began.elapsed());
            let reason = match timeout(patience.one_try.min(left), attempt(repeated)).await {
                Ok(Ok(value)) => return Ok(value),
                Ok(Err(Failed::Final(error))) => return Err(io::Error::new(error.kind(), format!("bucket: {what}: {error}"))),
                Ok(Err(Failed::Passing(error))) => error.to_string(),
                Err(_) => format!("no answer within {} ms", patience.one_try.min(left).as_millis()),
            };
            repeated = true;
            let wait = jittered(pause);
            if began.elapsed() + wait >= patience.call {
                return Err(io::Error::new(io::ErrorKind::TimedOut, format!("bucket: {what}: {reason}")));
            }
            tracing::debug!(%what, reason, "a try failed");
            sleep(wait).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// One try at a put. `repeated`: an earlier try may have been applied.
    async fn put_once(&self, path: &Path, bytes: &Bytes, repeated: bool) -> Result<(), Failed> {
        let exists = match self.client.put_opts(path, PutPayload::from_bytes(bytes.clone()), PutMode::Create.into()).await {
            Ok(_) => return Ok(()),
            Err(error @ Error::AlreadyExists { .. }) => error,
            Err(error) => return Err(error.into()),
        };
        // A store also says so when two puts met and neither may have won (S3's 409): then nothing is there.
        match self.client.get(path).await {
            Ok(found) => {
                let held = found.bytes().await.map_err(passing)?;
                if repeated && held == *bytes { Ok(()) } else { Err(exists.into()) }
            }
            Err(Error::NotFound { .. }) => Err(Failed::Passing(exists)),
            Err(error) => Err(passing(error)),
        }
    }

    async fn get_once(&self, path: &Path) -> Result<Bytes, Failed> {
        self.client.get(path).await?.bytes().await.map_err(Failed::from)
    }

    async fn size_once(&self, path: &Path) -> Result<u64, Failed> {
        let absent = match self.client.head(path).await {
            Ok(found) => return Ok(found.size),
            Err(error @ Error::NotFound { .. }) => error,
            Err(error) => return Err(error.into()),
        };
        // An answer to HEAD has no body to say whether the object or the whole bucket is missing; one to GET has.
        match self.client.get(path).await {
            Ok(_) => Err(passing(absent)),
            Err(error) => Err(error.into()),
        }
    }

    async fn range_once(&self, path: &Path, at: u64, end: u64) -> Result<Bytes, Failed> {
        let options = GetOptions { range: Some(GetRange::Bounded(at..end)), ..GetOptions::default() };
        let read = match self.client.get_opts(path, options).await {
            Ok(found) => found.bytes().await,
            Err(error) => Err(error),
        };
        match read {
            Ok(bytes) if bytes.len() as u64 == end - at => Ok(bytes),
            Ok(_) => Err(Failed::Final(io::ErrorKind::UnexpectedEof.into())),
            // How a store answers a range beyond the end differs; its size does not.
            Err(error) => match Failed::from(error) {
                Failed::Passing(error) if self.size_once(path).await? < end => {
                    Err(Failed::Final(io::Error::new(io::ErrorKind::UnexpectedEof, error)))
                }
                failed => Err(failed),
            },
        }
    }
}

/// Of the read that settles a put: whatever it says, the put's outcome stays open.
fn passing(error: Error) -> Failed {
    Failed::Passing(error)
}

/// From half to one and a half of a pause, so that callers that failed together do not come again together.
fn jittered(pause: Duration) -> Duration {
    let chance = uuid::Uuid::new_v4().as_bytes()[0];
    pause / 2 + pause * u32::from(chance) / 255
}

fn none_if_absent<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

impl Store for BucketStore {
    fn put(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let (path, bytes) = (self.path(name)?, Bytes::copy_from_slice(bytes));
        let (path, bytes) = (&path, &bytes);
        self.block_on(self.retry(format_args!("put {path}"), self.write, |repeated| self.put_once(path, bytes, repeated)))
    }

    fn get(&self, name: &str) -> io::Result<Option<Bytes>> {
        let path = &self.path(name)?;
        none_if_absent(self.block_on(self.retry(format_args!("get {path}"), self.read, |_| self.get_once(path))))
    }

    fn get_range(&self, name: &str, at: u64, bytes: usize) -> io::Result<Bytes> {
        let path = &self.path(name)?;
        let end = at.checked_add(bytes as u64).ok_or(io::ErrorKind::UnexpectedEof)?;
        if bytes == 0 {
            // HTTP has no empty range.
            let size = self.size(name)?.ok_or(io::ErrorKind::NotFound)?;
            return if at <= size { Ok(Bytes::new()) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
        self.block_on(self.retry(format_args!("get {at}..{end} of {path}"), self.read, |_| self.range_once(path, at, end)))
    }

    fn size(&self, name: &str) -> io::Result<Option<u64>> {
        let path = &self.path(name)?;
        none_if_absent(self.block_on(self.retry(format_args!("size of {path}"), self.read, |_| self.size_once(path))))
    }

    fn list(&self, prefix: &str) -> io::Result<Vec<String>> {
        // The client lists whole folders.
        let folder = self.path(prefix.rsplit_once('/').map_or("", |(folder, _)| folder))?;
        let folder = Some(&folder).filter(|folder| !folder.as_ref().is_empty());
        let all = || async { self.client.list(folder).try_collect::<Vec<_>>().await.map_err(Failed::from) };
        let found = self.block_on(self.retry(format_args!("list {prefix}"), self.read, |_| all()))?;
        let skip = if self.prefix.is_empty() { 0 } else { self.prefix.len() + 1 };
        let names = found.iter().filter_map(|meta| meta.location.as_ref().get(skip..));
        let mut names: Vec<String> = names.filter(|name| name.starts_with(prefix)).map(str::to_owned).collect();
        names.sort_unstable();
        Ok(names)
    }

    fn delete(&self, name: &str) -> io::Result<()> {
        let path = &self.path(name)?;
        let delete = || async { self.client.delete(path).await.map_err(Failed::from) };
        none_if_absent(self.block_on(self.retry(format_args!("delete {path}"), self.read, |_| delete()))).map(|_| ())
    }
}

impl Drop for BucketStore {
    fn drop(&mut self) {
        // A plain drop waits for tasks, and panics where it must not wait.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
#[path = "bucket_tests.rs"]
mod tests;
