//! The data directory's own file: what it is, in which format, for which cluster.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

const FILE: &str = "firth.json";
const FORMAT: u32 = 1;

/// Written once, at the first start.
#[derive(Debug, Serialize, Deserialize)]
pub struct Identity {
    pub format: u32,
    pub cluster: uuid::Uuid,
}

/// Holds the directory for this process.
pub struct DirectoryLock {
    _file: File,
}

/// Makes the directory if need be and takes it for this process alone.
pub fn lock(data: &Path) -> Result<DirectoryLock> {
    fs::create_dir_all(data).with_context(|| format!("cannot make {}", data.display()))?;
    let path = data.join("lock");
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(DirectoryLock { _file: file }),
        Err(rustix::io::Errno::WOULDBLOCK) => bail!("{} is in use by another firth", data.display()),
        Err(error) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
    }
}

/// Reads the identity, or makes it in a directory that has none.
pub fn read_or_make(data: &Path) -> Result<Identity> {
    let path = data.join(FILE);
    match fs::read(&path) {
        Ok(bytes) => {
            let identity: Identity = serde_json::from_slice(&bytes).with_context(|| format!("{} is damaged", path.display()))?;
            if identity.format > FORMAT {
                bail!("{} is of format {}; this firth reads up to {FORMAT}", data.display(), identity.format);
            }
            Ok(identity)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let identity = Identity { format: FORMAT, cluster: uuid::Uuid::new_v4() };
            write_whole(&path, &serde_json::to_vec_pretty(&identity)?)?;
            Ok(identity)
        }
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Writes a file so that it is there whole or not at all.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    let context = || format!("cannot write {}", path.display());
    let mut file = File::create(&temporary).with_context(context)?;
    file.write_all(bytes).with_context(context)?;
    file.sync_all().with_context(context)?;
    fs::rename(&temporary, path).with_context(context)?;
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        File::open(parent).and_then(|directory| directory.sync_all()).with_context(context)?;
    }
    Ok(())
}
