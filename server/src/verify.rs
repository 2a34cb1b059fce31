//! Checks a data directory offline.

use std::path::Path;

use anyhow::Result;

/// What `firth verify` prints, and whether all is well.
pub struct Verdict {
    pub text: String,
    pub sound: bool,
}

/// Reads everything and verifies every checksum and the chain. Changes nothing; the directory must not be in use.
pub fn verify(data: &Path) -> Result<Verdict> {
    if !data.is_dir() {
        anyhow::bail!("{} is no directory", data.display());
    }
    let _lock = crate::identity::lock(data)?;
    let disk = firth_journal::disk::FileDisk::open(&data.join("journal"))?;
    let journal = firth_journal::verify::verify(&disk);
    let store = firth_archive::store::DirectoryStore::open(&data.join("archive"))?;
    let archive = firth_archive::checkpoints::verify(&store);
    let sound = journal.is_sound() && archive.is_sound();
    let verdict = if sound { "sound: every checksum and the chain hold" } else { "DAMAGED" };
    Ok(Verdict { text: format!("{journal}\n{archive}\n{verdict}\n"), sound })
}
