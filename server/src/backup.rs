//! Copies a node while it runs, and puts copies back.
//!
//! A backup is the node as it was at one moment: the journal up to its last whole group, the checkpoints, and every segment that
//! these refer to. What lies before the end of the journal is never written again, so it can be copied under a running node; a part
//! that is recycled meanwhile is noticed, and the copy is begun anew. The copy is opened once before it is called a backup.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use firth_archive::checkpoints;
use firth_archive::segments::name;
use firth_archive::store::{DirectoryStore, Store};
use firth_broker::recovery::{live_segments, recover};
use firth_journal::disk::{Disk, FileDisk, FileName};
use firth_journal::scan::groups_end;
use firth_model::ids::{ExtentNumber, SegmentId};

use crate::config::Config;
use crate::identity::{self, Identity};
use crate::rehearsal::offline_options;

const MANIFEST: &str = "backup.json";
/// A busy node gives back extents while they are copied; each time the copy begins again with a newer checkpoint.
const TRIES: usize = 5;
/// The first block of an extent names its life.
const EXTENT_HEADER_BYTES: usize = 4096;

/// What a backup holds, to be compared when it is put back.
#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    format: u32,
    cluster: uuid::Uuid,
    /// The last entry of the journal that is in it.
    last_entry: u64,
    /// Bytes and CRC-32C of each file, by its path.
    files: BTreeMap<String, (u64, u32)>,
}

/// A part of the source went away while it was copied.
struct Overtaken;

/// Copies the node in `config.data` to `to`, which must be empty or missing. Gives what to tell the user.
pub fn backup(config: &Config, to: &Path) -> Result<String> {
    if !config.data.join("firth.json").exists() {
        bail!("{} is no data directory", config.data.display());
    }
    must_be_empty(to)?;
    let segments = crate::archive::segment_store_of(config)?;
    for _ in 0..TRIES {
        fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
        match copy(config, to, &*segments)? {
            Ok(told) => return Ok(told),
            Err(Overtaken) => clear(to)?,
        }
    }
    bail!("the node gave back what was being copied {TRIES} times; try again when it is less busy")
}

fn must_be_empty(directory: &Path) -> Result<()> {
    match fs::read_dir(directory).map(|mut entries| entries.next().is_some()) {
        Ok(true) => bail!("{} is not empty", directory.display()),
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error).with_context(|| format!("cannot read {}", directory.display())),
        _ => Ok(()),
    }
}

/// Removes what an attempt left in a directory that was empty before.
fn clear(directory: &Path) -> Result<()> {
    fs::remove_dir_all(directory).with_context(|| format!("cannot remove {}", directory.display()))
}

fn copy(config: &Config, to: &Path, segments: &dyn Store) -> Result<Result<String, Overtaken>> {
    let from = &config.data;
    fs::copy(from.join("firth.json"), to.join("firth.json")).context("cannot copy firth.json")?;
    // Checkpoints before the journal: what the journal holds behind them can only grow.
    copy_checkpoints(from, to)?;
    if let Err(Overtaken) = copy_extents(from, to)? {
        return Ok(Err(Overtaken));
    }
    let cluster = identity::read_or_make(to)?.cluster;
    let Ok((needed, last_entry)) = open_copy(to, cluster) else {
        // Checkpoint and journal do not meet: one was replaced while the other was copied.
        return Ok(Err(Overtaken));
    };
    let kept = DirectoryStore::open(&to.join("segments"))?;
    for id in &needed {
        match segments.get(&name(*id)).with_context(|| format!("cannot read {}", name(*id)))? {
            Some(bytes) => kept.put(&name(*id), &bytes).with_context(|| format!("cannot write {}", name(*id)))?,
            None => return Ok(Err(Overtaken)),
        }
    }
    let verdict = crate::verify::verify(to)?;
    if !verdict.sound {
        bail!("the copy is damaged, and so may be the node:\n{}", verdict.text);
    }
    let files = checksums(to)?;
    let bytes: u64 = files.values().map(|(bytes, _)| bytes).sum();
    let told =
        format!("backed up {} files, {} MiB, {} segments, up to journal entry {last_entry}\n", files.len(), bytes >> 20, needed.len());
    let manifest = Manifest { format: 1, cluster, last_entry, files };
    identity::write_whole(&to.join(MANIFEST), &serde_json::to_vec_pretty(&manifest)?)?;
    Ok(Ok(told))
}

fn copy_checkpoints(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to.join("archive"))?;
    let source = from.join("archive");
    // Parts before what names them: a checkpoint that is taken meanwhile is whole in the copy or not in it.
    let mut names: Vec<PathBuf> = fs::read_dir(&source)?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    names.retain(|path| !path.to_string_lossy().ends_with(".tmp"));
    names.sort_unstable();
    for path in names {
        let Some(file) = path.file_name() else { continue };
        match fs::copy(&path, to.join("archive").join(file)) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot copy {}", path.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Copies every extent up to where the journal ends now.
fn copy_extents(from: &Path, to: &Path) -> Result<Result<(), Overtaken>> {
    let source = from.join("journal");
    let target = to.join("journal").join("0");
    fs::create_dir_all(&target)?;
    let disk = FileDisk::open(&source)?;
    let extents: Vec<(ExtentNumber, u64)> = disk
        .list()?
        .into_iter()
        .filter_map(|(file, bytes)| if let FileName::Extent(number) = file { Some((number, bytes)) } else { None })
        .collect();
    let Some((last, _)) = extents.last() else { return Ok(Ok(())) };
    let end = match groups_end(&disk, *last) {
        Ok(Some(end)) => end,
        Ok(None) => return Ok(Err(Overtaken)),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Err(Overtaken)),
        Err(error) => return Err(error).context("cannot read the journal"),
    };
    for (number, bytes) in &extents {
        let file = format!("{:020}.fj", number.0);
        let final_bytes = if number == last { u64::from(end) } else { *bytes };
        if !copy_extent(&source.join("0").join(&file), &target.join(&file), *bytes, final_bytes)? {
            return Ok(Err(Overtaken));
        }
    }
    File::open(&target)?.sync_all()?;
    Ok(Ok(()))
}

/// Copies the first `final_bytes`; the rest of the copy is zeros. False: it was recycled meanwhile.
fn copy_extent(from: &Path, to: &Path, bytes: u64, final_bytes: u64) -> Result<bool> {
    let source = match File::open(from) {
        Ok(source) => source,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", from.display())),
    };
    let mut header = vec![0; EXTENT_HEADER_BYTES];
    source.read_exact_at(&mut header, 0)?;
    let mut target = File::create(to).with_context(|| format!("cannot write {}", to.display()))?;
    std::io::copy(&mut (&source).take(final_bytes), &mut target)?;
    target.set_len(bytes)?;
    target.sync_all()?;
    // By its name: a recycled file lives on under another one.
    let mut again = vec![0; EXTENT_HEADER_BYTES];
    match File::open(from).and_then(|file| file.read_exact_at(&mut again, 0)) {
        Ok(()) => Ok(again == header),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Opens the copy as a start would. Gives the segments it needs and its last entry.
fn open_copy(to: &Path, cluster: uuid::Uuid) -> Result<(Vec<SegmentId>, u64)> {
    let store = DirectoryStore::open(&to.join("archive"))?;
    // Without a checkpoint the whole journal must be there; opening sees whether it is.
    checkpoints::newest(&store)?;
    let disk = Arc::new(FileDisk::open(&to.join("journal"))?);
    let recovered = recover(disk, Arc::new(store), offline_options(cluster))?;
    Ok((live_segments(&recovered.state).into_iter().collect(), recovered.opened.last_lsn.0))
}

fn checksums(root: &Path) -> Result<BTreeMap<String, (u64, u32)>> {
    let mut files = BTreeMap::new();
    for folder in ["", "archive", "journal/0", "segments"] {
        for entry in fs::read_dir(root.join(folder))? {
            let entry = entry?;
            let Ok(file) = entry.file_name().into_string() else { continue };
            let path = if folder.is_empty() { file } else { format!("{folder}/{file}") };
            if entry.file_type()?.is_file() && !path.ends_with("lock") && path != MANIFEST {
                files.insert(path, checksum(&entry.path())?);
            }
        }
    }
    Ok(files)
}

fn checksum(path: &Path) -> Result<(u64, u32)> {
    let mut file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let (mut bytes, mut sum, mut piece) = (0, 0, vec![0; 1 << 20]);
    loop {
        let read = file.read(&mut piece)?;
        if read == 0 {
            return Ok((bytes, sum));
        }
        bytes += read as u64;
        sum = crc32c::crc32c_append(sum, &piece[..read]);
    }
}

/// Puts a backup into `data`, which must be empty or missing, comparing every file. Gives what to tell the user.
pub fn restore(from: &Path, data: &Path) -> Result<String> {
    let manifest = fs::read(from.join(MANIFEST)).with_context(|| format!("{} is no backup", from.display()))?;
    let manifest: Manifest = serde_json::from_slice(&manifest).with_context(|| format!("{} is damaged", from.join(MANIFEST).display()))?;
    let identity: Identity = serde_json::from_slice(&fs::read(from.join("firth.json"))?)?;
    if manifest.format != 1 || identity.cluster != manifest.cluster {
        bail!("{} is a backup of another kind", from.display());
    }
    must_be_empty(data)?;
    for folder in ["archive", "journal/0", "segments"] {
        fs::create_dir_all(data.join(folder)).with_context(|| format!("cannot make {}", data.display()))?;
    }
    for (path, expected) in &manifest.files {
        if path.split('/').any(|part| part == "..") || path.starts_with('/') {
            bail!("the backup names a file outside of it: {path}");
        }
        copy_whole(&from.join(path), &data.join(path))?;
        if checksum(&data.join(path))? != *expected {
            bail!("{path} is not what was backed up: the backup is damaged");
        }
    }
    for folder in ["archive", "journal/0", "journal", "segments", ""] {
        File::open(data.join(folder))?.sync_all()?;
    }
    let verdict = crate::verify::verify(data)?;
    if !verdict.sound {
        bail!("the backup is damaged:\n{}", verdict.text);
    }
    Ok(format!("restored {} files, up to journal entry {}\n", manifest.files.len(), manifest.last_entry))
}

fn copy_whole(from: &Path, to: &Path) -> Result<()> {
    let mut source = File::open(from).with_context(|| format!("cannot read {}", from.display()))?;
    let mut target = File::create(to).with_context(|| format!("cannot write {}", to.display()))?;
    std::io::copy(&mut source, &mut target)?;
    target.flush()?;
    Ok(target.sync_all()?)
}
