//! Checks a data directory offline.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;

use firth_archive::checkpoints;
use firth_archive::segments::{Segments, name};
use firth_archive::store::{DirectoryStore, Store};

use crate::config::Config;

/// What a check or a repair prints, and whether all is well.
pub struct Verdict {
    pub text: String,
    pub sound: bool,
}

/// As `verify`, with the segments of a bucket if `config` says how to reach it.
pub fn verify_node(config: &Config) -> Result<Verdict> {
    let in_bucket = config.data.join("bucket").exists() && !config.archive_url.is_empty();
    let bucket = if in_bucket { Some(crate::archive::segment_store_of(config)?) } else { None };
    verify_all(&config.data, bucket)
}

/// Reads everything and verifies every checksum and the chain. Changes nothing; the directory must not be in use.
pub fn verify(data: &Path) -> Result<Verdict> {
    verify_all(data, None)
}

fn verify_all(data: &Path, bucket: Option<Arc<dyn Store>>) -> Result<Verdict> {
    if !data.is_dir() {
        anyhow::bail!("{} is no directory", data.display());
    }
    let _lock = crate::identity::lock(data)?;
    let disk = firth_journal::disk::FileDisk::open(&data.join("journal"))?;
    let journal = firth_journal::verify::verify(&disk);
    let store = DirectoryStore::open(&data.join("archive"))?;
    let archive = checkpoints::verify(&store);
    let unread = data.join("bucket").exists() && bucket.is_none();
    let segments = verify_segments(data, &store, bucket, unread)?;
    let sound = journal.is_sound() && archive.is_sound() && segments.damage.is_empty();
    let verdict = if sound { "sound: every checksum and the chain hold" } else { "DAMAGED" };
    let mut text = format!("{journal}\n{archive}\nsegments: {}", segments.count);
    segments.damage.iter().for_each(|damage| text.push_str(&format!("\n  damaged: {damage}")));
    if unread {
        text.push_str("\n  segments in the bucket were not read: archive.url is not given");
    }
    text.push_str(&format!("\n{verdict}\n"));
    Ok(Verdict { text, sound })
}

struct SegmentReport {
    count: usize,
    damage: Vec<String>,
}

/// Reads every block of every segment, and looks whether those that the newest checkpoint needs are there, but if they lie `elsewhere`.
fn verify_segments(data: &Path, checkpoints: &DirectoryStore, bucket: Option<Arc<dyn Store>>, elsewhere: bool) -> Result<SegmentReport> {
    let root = data.join("segments");
    let store = match bucket {
        Some(bucket) => bucket,
        None if root.is_dir() => Arc::new(DirectoryStore::open(&root)?),
        None => return Ok(SegmentReport { count: 0, damage: Vec::new() }),
    };
    // Nothing is read through the caches.
    let segments = Segments::over(store, 0);
    let ids = segments.list()?;
    let mut damage = Vec::new();
    for id in &ids {
        match segments.verify(*id) {
            Ok(found) => damage.extend(found),
            Err(error) => damage.push(error.to_string()),
        }
    }
    // A checkpoint that cannot be read is told of elsewhere.
    if let Ok(Some(newest)) = checkpoints::newest(checkpoints)
        && let Ok(needed) = firth_broker::recovery::segments_of(&newest.entries)
        && !elsewhere
    {
        damage.extend(needed.iter().filter(|id| !ids.contains(id)).map(|id| format!("segment {} is missing", name(*id))));
    }
    Ok(SegmentReport { count: ids.len(), damage })
}
