//! Gives up what cannot be read, so that a node starts.
//!
//! The originals of everything that is replaced are kept in a directory beside it.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};

use firth_archive::checkpoints::{self, ArchiveError, Loaded};
use firth_archive::segments::{Segments, name};
use firth_archive::store::{DirectoryStore, Store};
use firth_broker::recovery::recover;
use firth_broker::repair::{Lost, damaged_segments, repair as repair_segments};
use firth_broker::state::State;
use firth_journal::disk::{Disk, FileDisk};
use firth_journal::journal::extent_bytes;
use firth_journal::repair::{Repaired, Wanted, repair as repair_journal};
use firth_model::ids::{ExtentNumber, Lsn, PartitionId, Position, SegmentId};
use firth_model::time::Millis;

use crate::config::Config;
use crate::identity;
use crate::rehearsal::{RehearsalDisk, RehearsalStore, offline_options};
use crate::run::system_clock;
use crate::verify::Verdict;

/// In the data directory: originals of what repairs replaced, in a directory for each.
const ASIDE: &str = "given-up";

/// Says what is to be given up and, if `accept_loss`, gives it up: without it everything is done in memory. The directory must not be in
/// use.
pub fn repair(config: &Config, accept_loss: bool) -> Result<Verdict> {
    if !config.data.join("firth.json").exists() {
        bail!("{} is no data directory", config.data.display());
    }
    let _lock = identity::lock(&config.data)?;
    let cluster = identity::read_or_make(&config.data)?.cluster;
    let bench = Bench { data: &config.data, aside: None, accept_loss, text: String::new(), changes: 0 };
    let mut disk: Arc<dyn Disk> = Arc::new(FileDisk::open(&config.data.join("journal"))?);
    if !accept_loss {
        disk = Arc::new(RehearsalDisk::over(disk));
    }
    let store = bench.store(Arc::new(DirectoryStore::open(&config.data.join("archive"))?));
    let segments = bench.store(crate::archive::segment_store_of(config)?);
    bench.everything(disk, store, Arc::new(Segments::over(segments, 0)), cluster)
}

/// One repair.
struct Bench<'a> {
    data: &'a Path,
    /// Made when something is first put there.
    aside: Option<PathBuf>,
    accept_loss: bool,
    text: String,
    changes: usize,
}

impl Bench<'_> {
    fn store(&self, real: Arc<dyn Store>) -> Arc<dyn Store> {
        if self.accept_loss { real } else { Arc::new(RehearsalStore::over(real)) }
    }

    fn everything(mut self, disk: Arc<dyn Disk>, store: Arc<dyn Store>, segments: Arc<Segments>, cluster: uuid::Uuid) -> Result<Verdict> {
        let (at, position) = self.checkpoint(&*store)?.map_or((Lsn(0), Position(0)), |loaded| (loaded.at, loaded.position));
        let copies = checkpoints::verify(&*store).damage;
        self.changes += copies.len();
        copies.iter().for_each(|what| self.say(&format!("checkpoint: {what}")));
        let options = offline_options(cluster);
        let wanted = Wanted {
            cluster_id: options.cluster_id,
            extent_bytes: extent_bytes(&*disk, &options)?,
            at,
            from: position,
            random: Box::new(|| *uuid::Uuid::new_v4().as_bytes()),
        };
        let repaired = repair_journal(&*disk, wanted, &mut |extent| self.extent(extent))?;
        checkpoints::mend_copies(&*store)?;
        let recovered = recover(disk, store, options).context("the repaired journal does not open")?;
        let names = Names::of(&recovered.state);
        self.journal(&repaired, &names);
        let damaged = damaged_segments(&recovered.state, &segments)?;
        for id in &damaged {
            self.segment(*id, &segments)?;
        }
        let lost = repair_segments(recovered, &segments, &damaged, now(), &mut || uuid::Uuid::new_v4().as_u128())?;
        self.lost(&lost, &names);
        Ok(self.verdict(damaged.len()))
    }

    fn say(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    /// A place for an original.
    fn aside(&mut self, file: &str) -> Result<PathBuf> {
        let directory = match &self.aside {
            Some(directory) => directory.clone(),
            None => self.aside.insert(self.data.join(ASIDE).join(now().0.to_string())).clone(),
        };
        let path = directory.join(file);
        fs::create_dir_all(path.parent().unwrap_or(&directory)).with_context(|| format!("cannot make {}", directory.display()))?;
        Ok(path)
    }

    /// The newest checkpoint that can be read. If none can, the journal must reach back to its beginning.
    fn checkpoint(&mut self, store: &dyn Store) -> Result<Option<Loaded>> {
        match checkpoints::newest(store) {
            Err(ArchiveError::Damaged(what)) => {
                self.say(&format!("no checkpoint can be read: {what}"));
                if !self.data.join("journal/0").join(format!("{:020}.fj", 0)).exists() {
                    bail!("no checkpoint can be read ({what}), and the journal does not reach back to its beginning: restore a backup");
                }
                self.changes += 1;
                for object in store.list("")? {
                    if let Some(bytes) = store.get(&object)? {
                        self.keep(&format!("archive/{}", object.replace('/', ".")), &bytes)?;
                    }
                    store.delete(&object)?;
                }
                Ok(None)
            }
            outcome => Ok(outcome?),
        }
    }

    /// Puts an original aside.
    fn keep(&mut self, file: &str, bytes: &[u8]) -> Result<()> {
        if self.accept_loss {
            fs::write(self.aside(file)?, bytes)?;
        }
        Ok(())
    }

    /// Keeps an extent before it is replaced.
    fn extent(&mut self, extent: ExtentNumber) -> std::io::Result<()> {
        let file = format!("{:020}.fj", extent.0);
        let original = self.data.join("journal/0").join(&file);
        if self.accept_loss && original.exists() {
            let kept = self.aside(&format!("journal/{file}")).map_err(std::io::Error::other)?;
            fs::copy(original, kept)?;
        }
        Ok(())
    }

    fn segment(&mut self, id: SegmentId, segments: &Segments) -> Result<()> {
        self.say(&format!("segment {} is damaged or missing", name(id)));
        match segments.whole(id)? {
            Some(bytes) => self.keep(&format!("segments/{}", name(id).replace('/', ".")), &bytes),
            None => Ok(()),
        }
    }

    fn journal(&mut self, repaired: &Repaired, names: &Names) {
        self.changes += repaired.extents.len();
        for (extent, what) in &repaired.extents {
            self.say(&format!("extent {}: {what}", extent.0));
        }
        for given_up in &repaired.given_up {
            let said = given_up.describe(&|id| names.of_partition(id));
            self.say(&format!("given up: {said}"));
        }
    }

    fn lost(&mut self, lost: &[Lost], names: &Names) {
        for (partition, base, end) in lost {
            self.say(&format!("given up: {} offsets {base} to {}", names.of_partition(*partition), end.0.saturating_sub(1)));
        }
    }

    fn verdict(mut self, damaged_segments: usize) -> Verdict {
        let sound = self.changes == 0 && damaged_segments == 0;
        if sound {
            self.say("nothing is damaged");
        } else if !self.accept_loss {
            self.say("nothing was changed; with --accept-loss what is damaged is given up and the rest is kept");
        } else if let Some(aside) = &self.aside {
            let said = format!("repaired; the originals are in {}", aside.display());
            self.say(&said);
        } else {
            self.say("repaired");
        }
        Verdict { text: self.text, sound: sound || self.accept_loss }
    }
}

/// What partitions are called: stream and number in it.
struct Names(HashMap<PartitionId, String>);

impl Names {
    fn of(state: &State) -> Names {
        let named = |info: &Arc<firth_gateway::streams::StreamInfo>| {
            let name = info.name.as_str().to_owned();
            info.partitions.iter().enumerate().map(move |(at, id)| (*id, format!("{name}/{at}"))).collect::<Vec<_>>()
        };
        Names(state.catalog.all().flat_map(named).collect())
    }

    fn of_partition(&self, id: PartitionId) -> String {
        self.0.get(&id).cloned().unwrap_or_else(|| format!("partition {}", id.0))
    }
}

fn now() -> Millis {
    system_clock()()
}
