//! Reads and writes segments on a store, through caches.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};

use firth_model::ids::{PartitionId, SegmentId};
use firth_model::limits::SEGMENT_DIRECTORY_CACHE_BYTES;

use crate::segment::{Block, Directory, SegmentDamage, TRAILER_BYTES};
use crate::store::Store;

const PREFIX: &str = "seg/";
/// What is read first from the end of a segment: the trailer and, almost always, the whole footer.
const END_BYTES: u64 = 64 << 10;
/// Blocks of a partition that are loaded together: a request to a bucket should be worth its round trip.
const CHUNK_BLOCKS: usize = 4;

#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// The segment was replaced by others and is deleted.
    #[error("the segment is gone")]
    Gone,
    #[error("segment {}: {damage}", name(*.id))]
    Damaged { id: SegmentId, damage: SegmentDamage },
    #[error("segment {}: {error}", name(*.id))]
    Io { id: SegmentId, error: Arc<io::Error> },
}

/// The object's name.
pub fn name(id: SegmentId) -> String {
    format!("{PREFIX}{:032x}", id.0)
}

fn id_of(name: &str) -> Option<SegmentId> {
    let digits = name.strip_prefix(PREFIX).filter(|digits| digits.len() == 32)?;
    u128::from_str_radix(digits, 16).ok().map(SegmentId)
}

/// Some neighbouring blocks, each verified or not to be had.
type Chunk = Arc<[Result<Bytes, SegmentDamage>]>;

#[derive(Clone)]
struct ByBytes;

impl Weighter<(SegmentId, u64), Chunk> for ByBytes {
    fn weight(&self, _: &(SegmentId, u64), chunk: &Chunk) -> u64 {
        let blocks = chunk.iter().filter_map(|block| block.as_ref().ok());
        64 + blocks.map(|block| block.len() as u64).sum::<u64>()
    }
}

impl Weighter<SegmentId, Arc<Directory>> for ByBytes {
    fn weight(&self, _: &SegmentId, directory: &Arc<Directory>) -> u64 {
        64 + size_of_val(directory.all()) as u64
    }
}

/// One shard, because what is kept is large and few threads ask: in many shards the largest items would fit none.
fn cache<K: std::hash::Hash + Eq, V: Clone>(bytes_max: u64) -> Cache<K, V, ByBytes>
where
    ByBytes: Weighter<K, V>,
{
    const EXPECTED: usize = 256;
    let options = OptionsBuilder::new().shards(1).estimated_items_capacity(EXPECTED).weight_capacity(bytes_max).build();
    let options = options.expect("all that it asks for is given");
    Cache::with_options(options, ByBytes, DefaultHashBuilder::default(), DefaultLifecycle::default())
}

/// All segments of a node. Loads each directory and each chunk of blocks once, however many ask at the same time.
pub struct Segments {
    store: Arc<dyn Store>,
    directories: Cache<SegmentId, Arc<Directory>, ByBytes>,
    chunks: Cache<(SegmentId, u64), Chunk, ByBytes>,
}

impl Segments {
    pub fn over(store: Arc<dyn Store>, block_cache_bytes: u64) -> Segments {
        Segments { store, directories: cache(SEGMENT_DIRECTORY_CACHE_BYTES), chunks: cache(block_cache_bytes) }
    }

    /// Makes a segment, durably.
    pub fn put(&self, id: SegmentId, bytes: &[u8]) -> io::Result<()> {
        self.store.put(&name(id), bytes)
    }

    /// All that there are, whoever needs them.
    pub fn list(&self) -> io::Result<Vec<SegmentId>> {
        Ok(self.store.list(PREFIX)?.iter().filter_map(|name| id_of(name)).collect())
    }

    pub fn delete(&self, id: SegmentId) -> io::Result<()> {
        self.directories.remove(&id);
        self.store.delete(&name(id))
    }

    /// A whole segment as it is on the store, for copies.
    pub fn whole(&self, id: SegmentId) -> io::Result<Option<Bytes>> {
        self.store.get(&name(id))
    }

    /// The blocks of a segment. One whose footer is damaged costs a read of the whole.
    pub fn directory(&self, id: SegmentId) -> Result<Arc<Directory>, SegmentError> {
        self.directories.get_or_insert_with(&id, || self.load_directory(id).map(Arc::new))
    }

    fn load_directory(&self, id: SegmentId) -> Result<Directory, SegmentError> {
        match self.read_footer(id) {
            Err(SegmentError::Damaged { damage, .. }) => {
                tracing::error!(segment = name(id), %damage, "the directory is read again from the blocks");
                let whole = self.store.get(&name(id)).map_err(|error| failed(id, error))?.ok_or(SegmentError::Gone)?;
                Ok(Directory::from_blocks(&whole))
            }
            outcome => outcome,
        }
    }

    fn read_footer(&self, id: SegmentId) -> Result<Directory, SegmentError> {
        let damaged = |damage| SegmentError::Damaged { id, damage };
        let total = self.store.size(&name(id)).map_err(|error| failed(id, error))?.ok_or(SegmentError::Gone)?;
        if total < TRAILER_BYTES as u64 {
            return Err(damaged(SegmentDamage { at: 0, what: "the segment is too short" }));
        }
        let from = total.saturating_sub(END_BYTES);
        let end = self.range(id, from, total)?;
        let position = Directory::footer_at(&end[end.len() - TRAILER_BYTES..], total).map_err(damaged)?;
        let footer = match usize::try_from(position.wrapping_sub(from)) {
            Ok(at) if position >= from => end.slice(at..),
            _ => self.range(id, position, total)?,
        };
        Directory::decode(&footer, position).map_err(damaged)
    }

    fn range(&self, id: SegmentId, from: u64, to: u64) -> Result<Bytes, SegmentError> {
        let bytes = usize::try_from(to - from).map_err(|_| failed(id, io::ErrorKind::OutOfMemory.into()))?;
        self.store.get_range(&name(id), from, bytes).map_err(|error| failed(id, error))
    }

    /// The body of the block at `index` of the partition's blocks in `directory`, verified.
    pub fn block(&self, id: SegmentId, directory: &Directory, partition: PartitionId, index: usize) -> Result<Bytes, SegmentError> {
        let blocks = directory.of(partition);
        let first = index - index % CHUNK_BLOCKS;
        let neighbours = &blocks[first..blocks.len().min(first + CHUNK_BLOCKS)];
        let key = (id, neighbours.first().map_or(0, |block| block.position));
        let chunk = self.chunks.get_or_insert_with(&key, || self.load_chunk(id, neighbours))?;
        match &chunk[index - first] {
            Ok(body) => Ok(body.clone()),
            Err(damage) => Err(SegmentError::Damaged { id, damage: *damage }),
        }
    }

    /// Loads the chunk of the block at `index`, and the next.
    pub fn load_ahead(&self, id: SegmentId, directory: &Directory, partition: PartitionId, index: usize) {
        for index in [index, index + CHUNK_BLOCKS] {
            if index >= directory.of(partition).len() || self.block(id, directory, partition, index).is_err() {
                return;
            }
        }
    }

    fn load_chunk(&self, id: SegmentId, blocks: &[Block]) -> Result<Chunk, SegmentError> {
        let (Some(first), Some(last)) = (blocks.first(), blocks.last()) else { return Err(SegmentError::Gone) };
        let to = last.position.saturating_add(last.bytes() as u64);
        // Neighbours in the directory lie one behind the other; a directory made from a damaged segment may have holes.
        let together = to.checked_sub(first.position) == Some(blocks.iter().map(|block| block.bytes() as u64).sum());
        let read = if together { self.range(id, first.position, to) } else { Err(failed(id, io::ErrorKind::UnexpectedEof.into())) };
        let open = |block: &Block| match &read {
            // Each in memory of its own: an answer that waits for a slow socket must not keep the whole chunk.
            Ok(bytes) => {
                let at = usize::try_from(block.position - first.position).unwrap_or(bytes.len());
                Ok(block.open(&bytes.slice(at..)).map(|body| Bytes::copy_from_slice(&body)))
            }
            // The segment may end within one of them: each by itself, so that the others are served.
            Err(SegmentError::Io { error, .. }) if error.kind() == io::ErrorKind::UnexpectedEof => self.load_block(id, block),
            Err(SegmentError::Io { error, .. }) => Err(SegmentError::Io { id, error: error.clone() }),
            Err(_) => Err(SegmentError::Gone),
        };
        blocks.iter().map(open).collect()
    }

    fn load_block(&self, id: SegmentId, block: &Block) -> Result<Result<Bytes, SegmentDamage>, SegmentError> {
        match self.range(id, block.position, block.position.saturating_add(block.bytes() as u64)) {
            Ok(bytes) => Ok(block.open(&bytes)),
            Err(SegmentError::Io { error, .. }) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Ok(Err(SegmentDamage { at: block.position, what: "the segment ends early" }))
            }
            Err(other) => Err(other),
        }
    }

    /// The batches of a damaged block that are certainly whole, in order.
    pub fn salvage(&self, id: SegmentId, block: &Block) -> Result<Vec<Bytes>, SegmentError> {
        let total = self.store.size(&name(id)).map_err(|error| failed(id, error))?.ok_or(SegmentError::Gone)?;
        let to = block.position.saturating_add(block.bytes() as u64).min(total);
        Ok(block.salvage(&self.range(id, block.position.min(to), to)?))
    }

    /// Reads every block and says what is damaged.
    pub fn verify(&self, id: SegmentId) -> Result<Vec<String>, SegmentError> {
        let whole = self.whole(id).map_err(|error| failed(id, error))?.ok_or(SegmentError::Gone)?;
        let mut damage = Vec::new();
        let directory = self.read_footer(id).unwrap_or_else(|error| {
            damage.push(error.to_string());
            Directory::from_blocks(&whole)
        });
        for block in directory.all() {
            let at = usize::try_from(block.position).unwrap_or(usize::MAX).min(whole.len());
            if let Err(what) = block.check(&whole.slice(at..)) {
                let (partition, base, end) = (block.partition.0, block.base, block.end.0 - 1);
                damage.push(format!("segment {} {what}; partition {partition} offsets {base} to {end}", name(id)));
            }
        }
        Ok(damage)
    }
}

fn failed(id: SegmentId, error: io::Error) -> SegmentError {
    if error.kind() == io::ErrorKind::NotFound { SegmentError::Gone } else { SegmentError::Io { id, error: Arc::new(error) } }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::Writer;
    use crate::store::MemoryStore;
    use firth_model::ids::Offset;
    use firth_model::time::Millis;

    fn filled() -> (Arc<MemoryStore>, Segments, SegmentId) {
        let store = Arc::new(MemoryStore::default());
        let segments = Segments::over(store.clone(), 8 << 20);
        let mut writer = Writer::begin();
        for at in 0..90u64 {
            writer.push(PartitionId(3), &vec![at as u8; 30_000], Offset(at), Offset(at + 1), 0, Millis(0));
        }
        let id = SegmentId::made(Millis(1_700_000_000_000), 77 << 48);
        segments.put(id, &writer.finish().0).expect("memory");
        (store, segments, id)
    }

    #[test]
    fn blocks_are_loaded_once_and_served_after() {
        let (store, segments, id) = filled();
        assert_eq!((segments.list().expect("memory"), id.made_at()), (vec![id], Millis(1_700_000_000_000)));
        let directory = segments.directory(id).expect("own bytes");
        let blocks = directory.of(PartitionId(3));
        assert!(blocks.len() > 2 * CHUNK_BLOCKS);
        let body = segments.block(id, &directory, PartitionId(3), 1).expect("own bytes");
        assert_eq!(body[0], blocks[1].base.0 as u8);
        store.damage(&name(id), |bytes| bytes.fill(0));
        assert_eq!(segments.block(id, &directory, PartitionId(3), 0).expect("from memory").len(), blocks[0].body_bytes as usize);
        assert!(matches!(segments.block(id, &directory, PartitionId(3), CHUNK_BLOCKS), Err(SegmentError::Damaged { .. })));
    }

    #[test]
    fn damage_harms_its_own_block_and_is_named() {
        let (store, segments, id) = filled();
        let blocks = segments.directory(id).expect("own bytes").of(PartitionId(3)).to_vec();
        store.damage(&name(id), |bytes| bytes[blocks[2].position as usize + 500] ^= 1);
        let directory = segments.directory(id).expect("in memory");
        assert!(segments.block(id, &directory, PartitionId(3), 2).is_err());
        assert!(segments.block(id, &directory, PartitionId(3), 3).is_ok());
        let damage = segments.verify(id).expect("is there");
        assert_eq!(damage.len(), 1);
        assert!(damage[0].contains(&format!("partition 3 offsets {} to {}", blocks[2].base, blocks[2].end.0 - 1)), "{damage:?}");
    }

    #[test]
    fn a_cut_segment_serves_what_is_left() {
        let (store, segments, id) = filled();
        store.damage(&name(id), |bytes| bytes.truncate(1_000_000));
        let directory = segments.directory(id).expect("read from the blocks");
        let left = directory.of(PartitionId(3)).len();
        assert_eq!(left, 3);
        assert!((0..left).all(|index| segments.block(id, &directory, PartitionId(3), index).is_ok()));
        segments.delete(id).expect("memory");
        assert!(matches!(segments.directory(id), Err(SegmentError::Gone)));
    }
}
