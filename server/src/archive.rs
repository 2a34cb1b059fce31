//! Where segments lie: in a directory, or in a bucket.

use std::fs;
use std::io::ErrorKind;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use firth_archive::bucket::{BucketOptions, BucketStore};
use firth_archive::store::{DirectoryStore, Store};
use uuid::Uuid;

use crate::config::Config;
use crate::identity;

/// The directory of segments, when they lie in one.
const DIRECTORY: &str = "segments";
/// In the data directory: the bucket's URL, written when the bucket was first found fit.
const BUCKET_FILE: &str = "bucket";
/// In the bucket: the cluster whose segments lie under this prefix.
const OWNER: &str = "owner";

/// The store that the configuration names. A bucket is probed, and marked as this cluster's.
///
/// Errors: a bucket that is not fit, another cluster's, or not the one that this data directory has used before. One that this data
/// directory has used and that cannot be reached now is no error: the node serves what it has.
pub fn segment_store(config: &Config) -> Result<Arc<dyn Store>> {
    let used = used_bucket(config)?;
    if config.archive_url.is_empty() {
        if let Some(used) = used {
            bail!("the segments of {} lie in {used}: set archive.url to it", config.data.display());
        }
        let root = config.data.join(DIRECTORY);
        let store = DirectoryStore::open(&root).with_context(|| format!("cannot open {}", root.display()))?;
        // A full disk must not keep the journal from what frees space.
        return Ok(Arc::new(store.leaving_space()));
    }
    match &used {
        Some(used) if *used != config.archive_url => {
            bail!("the segments of {} lie in {used}, and archive.url is {}", config.data.display(), config.archive_url)
        }
        None => refuse_left_behind(config)?,
        Some(_) => {}
    }
    let options = bucket_options(config, |name| std::env::var(name).ok())?;
    let store = BucketStore::open(&options).context("archive.url, archive.endpoint, archive.region")?;
    match claim(config, &store) {
        Ok(()) => identity::write_whole(&config.data.join(BUCKET_FILE), config.archive_url.as_bytes())?,
        Err(error) if used.is_some() && is_out_of_reach(&error) => {
            tracing::warn!(error = format!("{error:#}"), "the bucket cannot be reached: old records cannot be read until it can");
        }
        Err(error) => return Err(error),
    }
    Ok(Arc::new(store))
}

/// The store that a data directory's segments lie in, for reading beside a running node: nothing is probed or claimed.
pub fn segment_store_of(config: &Config) -> Result<Arc<dyn Store>> {
    match used_bucket(config)? {
        None => Ok(Arc::new(DirectoryStore::beside(&config.data.join(DIRECTORY)))),
        Some(used) if used == config.archive_url => {
            let options = bucket_options(config, |name| std::env::var(name).ok())?;
            Ok(Arc::new(BucketStore::open(&options).context("archive.url, archive.endpoint, archive.region")?))
        }
        Some(used) => bail!("the segments of {} lie in {used}: set archive.url to it", config.data.display()),
    }
}

fn used_bucket(config: &Config) -> Result<Option<String>> {
    let path = config.data.join(BUCKET_FILE);
    match fs::read_to_string(&path) {
        Ok(url) => Ok(Some(url.trim().to_owned())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Segments in the directory would be missed by a node that looks into a bucket.
fn refuse_left_behind(config: &Config) -> Result<()> {
    let root = config.data.join(DIRECTORY);
    if fs::read_dir(&root).is_ok_and(|mut entries| entries.next().is_some()) {
        bail!("{} holds segments: a data directory that has some cannot change to a bucket", root.display());
    }
    Ok(())
}

/// Probes the bucket and makes it this cluster's.
fn claim(config: &Config, store: &BucketStore) -> Result<()> {
    let context = || format!("cannot use the bucket {}", config.archive_url);
    store.reach().with_context(context)?;
    store.probe().with_context(context)?;
    let cluster = identity::read_or_make(&config.data)?.cluster;
    match store.put(OWNER, cluster.to_string().as_bytes()) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        done => return done.with_context(context),
    }
    let owner = store.get(OWNER).with_context(context)?.unwrap_or_default();
    match std::str::from_utf8(&owner).ok().and_then(|text| Uuid::parse_str(text).ok()) {
        Some(owner) if owner == cluster => Ok(()),
        Some(owner) => {
            Err(anyhow!("it belongs to cluster {owner}, and this is cluster {cluster}: take another prefix")).with_context(context)
        }
        None => Err(anyhow!("its object {OWNER:?} names no cluster: take another prefix")).with_context(context),
    }
}

fn is_out_of_reach(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == ErrorKind::TimedOut)
}

/// From `s3://BUCKET/PREFIX` and the environment's credentials.
fn bucket_options(config: &Config, variable: impl Fn(&str) -> Option<String>) -> Result<BucketOptions> {
    let wrong = || anyhow!("archive.url {:?}: s3://BUCKET or s3://BUCKET/PREFIX is expected", config.archive_url);
    let rest = config.archive_url.strip_prefix("s3://").ok_or_else(wrong)?;
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let prefix = prefix.trim_end_matches('/');
    if bucket.is_empty() || prefix.split('/').any(|part| part.is_empty() && !prefix.is_empty()) {
        return Err(wrong());
    }
    let endpoint = &config.archive_endpoint;
    if !(endpoint.is_empty() || endpoint.starts_with("http://") || endpoint.starts_with("https://")) {
        bail!("archive.endpoint {endpoint:?}: a URL that begins with https:// or http:// is expected");
    }
    let required =
        |name| variable(name).filter(|value| !value.is_empty()).ok_or_else(|| anyhow!("archive.url needs the environment variable {name}"));
    Ok(BucketOptions {
        bucket: bucket.to_owned(),
        prefix: prefix.to_owned(),
        endpoint: endpoint.clone(),
        region: config.archive_region.clone(),
        key_id: required("AWS_ACCESS_KEY_ID")?,
        secret: required("AWS_SECRET_ACCESS_KEY")?,
        session: variable("AWS_SESSION_TOKEN").unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Values;

    fn config(data: &std::path::Path, url: &str, endpoint: &str) -> Config {
        let mut values = Values::default();
        let data = data.to_str().expect("a plain path");
        values.flags([("data", data), ("archive.url", url), ("archive.endpoint", endpoint)]).expect("known names");
        Config::from_values(&values, &[]).expect("a configuration")
    }

    fn credentials(name: &str) -> Option<String> {
        matches!(name, "AWS_ACCESS_KEY_ID" | "AWS_SECRET_ACCESS_KEY").then(|| "x".to_owned())
    }

    fn options(url: &str, endpoint: &str) -> Result<BucketOptions> {
        bucket_options(&config("nowhere".as_ref(), url, endpoint), credentials)
    }

    #[test]
    fn urls_name_a_bucket_and_a_prefix() {
        for (url, bucket, prefix) in
            [("s3://b", "b", ""), ("s3://b/", "b", ""), ("s3://b/p", "b", "p"), ("s3://b/p/q/", "b", "p/q"), ("s3://b-1.c/p", "b-1.c", "p")]
        {
            let options = options(url, "").expect(url);
            assert_eq!((&*options.bucket, &*options.prefix), (bucket, prefix), "{url}");
        }
        for url in ["b/p", "s3://", "s3:///p", "s3://b//p", "s3://b/p//q", "https://b/p", "S3://b"] {
            assert!(options(url, "").is_err(), "{url}");
        }
        assert!(options("s3://b", "http://127.0.0.1:1").is_ok() && options("s3://b", "https://s3.example").is_ok());
        assert!(options("s3://b", "s3.example:9000").is_err());
    }

    #[test]
    fn credentials_are_asked_for_by_name() {
        let config = config("nowhere".as_ref(), "s3://b", "");
        let error = bucket_options(&config, |_| None).expect_err("no credentials");
        assert!(error.to_string().contains("AWS_ACCESS_KEY_ID"), "{error}");
    }

    #[test]
    fn a_data_directory_stays_with_its_store() {
        let data = std::env::temp_dir().join(format!("firth-segments-{}", Uuid::new_v4()));
        let local = config(&data, "", "");
        let store = segment_store(&local).expect("a directory");
        store.put("a/b", b"x").expect("works");
        let refused = |config: &Config| segment_store(config).err().expect("refused").to_string();
        assert!(refused(&config(&data, "s3://b", "")).contains("holds segments"));
        fs::remove_dir_all(data.join(DIRECTORY)).expect("removed");
        identity::write_whole(&data.join(BUCKET_FILE), b"s3://b/p").expect("written");
        assert!(refused(&local).contains("lie in s3://b/p"));
        assert!(refused(&config(&data, "s3://b/q", "")).contains("lie in s3://b/p"));
        fs::remove_dir_all(&data).expect("removed");
    }
}
