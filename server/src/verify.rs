//! Checks a data directory offline.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;

use firth_archive::checkpoints;
use firth_archive::segments::{Segments, name};
use firth_archive::store::{DirectoryStore, Store};
use firth_broker::recovery::{live_segments, recover};
use firth_journal::disk::{Disk, FileDisk};
use firth_model::ids::SegmentId;

use crate::config::Config;
use crate::identity;
use crate::rehearsal::{RehearsalDisk, RehearsalStore, offline_options};

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
    let disk = Arc::new(FileDisk::open(&data.join("journal"))?);
    let journal = firth_journal::verify::verify(&*disk);
    let store = Arc::new(DirectoryStore::open(&data.join("archive"))?);
    let archive = checkpoints::verify(&*store);
    let mut text = format!("{journal}\n{archive}\n");
    let in_directory = data.join("segments");
    let unread = data.join("bucket").exists() && bucket.is_none();
    let segments = bucket.unwrap_or_else(|| Arc::new(DirectoryStore::beside(&in_directory)));
    // Nothing is read through the caches.
    let segments = Segments::over(segments, 0);
    let there = if unread || !in_directory.is_dir() && !data.join("bucket").exists() { Vec::new() } else { segments.list()? };
    let mut damage = Vec::new();
    for id in &there {
        match segments.verify(*id) {
            Ok(found) => damage.extend(found),
            Err(error) => damage.push(error.to_string()),
        }
    }
    // What cannot be read is told of already.
    if journal.is_sound() && archive.is_sound() && data.join("firth.json").exists() {
        match needed(data, disk, store) {
            Ok(needed) if !unread => {
                damage.extend(needed.iter().filter(|id| !there.contains(id)).map(|id| format!("segment {} is missing", name(*id))));
            }
            Ok(_) => {}
            Err(error) => damage.push(format!("a node does not start from it: {error:#}")),
        }
    }
    let sound = journal.is_sound() && archive.is_sound() && damage.is_empty();
    text.push_str(&format!("segments: {}", there.len()));
    damage.iter().for_each(|damage| text.push_str(&format!("\n  damaged: {damage}")));
    if unread {
        text.push_str("\n  segments in the bucket were not read: archive.url is not given");
    }
    let verdict = if sound { "sound: every checksum and the chain hold" } else { "DAMAGED" };
    text.push_str(&format!("\n{verdict}\n"));
    Ok(Verdict { text, sound })
}

/// The segments that a node needs that starts from it.
fn needed(data: &Path, disk: Arc<dyn Disk>, store: Arc<dyn Store>) -> Result<BTreeSet<SegmentId>> {
    let cluster = identity::read_or_make(data)?.cluster;
    let (disk, store) = (Arc::new(RehearsalDisk::over(disk)), Arc::new(RehearsalStore::over(store)));
    Ok(live_segments(&recover(disk, store, offline_options(cluster))?.state))
}
