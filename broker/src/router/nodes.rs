//! The nodes of a trie, and which child a level leads to.
//!
//! A node knows its parent, not its children: a child is found by the hash of its parent and its first level, in one table for the
//! whole trie. So a node with a million children costs no more than a chain, and no node carries a container. The table grows and
//! shrinks by one bucket at a time (linear hashing) and the nodes live in chunks, so no change moves more than a few of them.

use std::collections::BTreeSet;
use std::hash::BuildHasher;

use super::pattern::{Kind, Step};
use super::token::Tokens;

/// One or more levels of patterns.
pub struct Node {
    /// The first level, `first` bytes as in its step, and the further ones, each as `/` with its text: literals, and `*` for one level.
    pub label: Box<[u8]>,
    pub tokens: Tokens,
    pub parent: NodeId,
    hash: u32,
    /// The next node of the bucket, or of the free ones of its chunk.
    next: NodeId,
    pub children: u32,
    /// All children's ids, each mixed in by exclusive or: where there is one child, its id.
    pub children_mixed: NodeId,
    pub first: u16,
    pub kind: Kind,
    /// Which kinds of patterns children begin with: `HAS_ONE` and so on.
    pub has: u8,
}

pub type NodeId = u32;

/// No node.
const NONE: NodeId = NodeId::MAX;
/// The ids of the roots are the highest ones below `NONE`.
pub const ROOTS: usize = 6;
const ROOT: NodeId = NONE - ROOTS as NodeId;

pub const HAS_ONE: u8 = 1;
pub const HAS_PREFIX: u8 = 2;
pub const HAS_ANY: u8 = 4;
pub const HAS_REST: u8 = 8;

const CHUNK_NODES: usize = 512;
const SEGMENT_BUCKETS: usize = 1024;
const BUCKETS_MIN: usize = 4;

/// Keyed with a secret of the process, so that no one can choose levels that meet in one bucket.
#[derive(Clone)]
pub struct Hashes {
    state: foldhash::fast::RandomState,
    factor: u64,
}

pub struct Nodes {
    roots: [Node; ROOTS],
    chunks: Vec<Chunk>,
    /// Chunks with room. The first is filled first, so that the others may become empty.
    roomy: BTreeSet<usize>,
    segments: Vec<Vec<NodeId>>,
    buckets: usize,
    live: usize,
    label_bytes: usize,
    hashes: Hashes,
}

struct Chunk {
    nodes: Vec<Node>,
    free: NodeId,
    live: usize,
}

impl Hashes {
    pub fn random() -> Hashes {
        let state = foldhash::fast::RandomState::default();
        Hashes { factor: state.hash_one(0x5EED_u64) | 1, state }
    }

    /// The hash of one level, which is then mixed with the parent.
    pub fn level(&self, step: Step<'_>) -> u64 {
        match step.kind {
            Kind::Prefix => step.bytes.iter().fold(self.factor, |hash, &byte| self.longer(hash, byte)),
            kind => self.state.hash_one((kind as u8, step.bytes)),
        }
    }

    /// The hash of each prefix of `level`, from the empty one on.
    pub fn prefixes(&self, level: &[u8], out: &mut Vec<u64>) {
        out.clear();
        let mut hash = self.factor;
        out.push(hash);
        out.extend(level.iter().map(|&byte| {
            hash = self.longer(hash, byte);
            hash
        }));
    }

    fn longer(&self, hash: u64, byte: u8) -> u64 {
        (hash.rotate_left(23) ^ u64::from(byte)).wrapping_mul(self.factor)
    }

    fn edge(&self, level: u64, parent: NodeId) -> u32 {
        let mixed = u128::from(level ^ (u64::from(parent) << 16)) * u128::from(self.factor | 1 << 63);
        let bytes = ((mixed >> 64) ^ mixed).to_le_bytes();
        u32::from_le_bytes([bytes[2], bytes[3], bytes[4], bytes[5]])
    }
}

impl Node {
    /// Whether the label is walked to its end.
    pub fn ends_at(&self, at: u16) -> bool {
        usize::from(at) == self.label.len()
    }

    /// The first level as a step.
    pub fn step(&self) -> Step<'_> {
        Step { kind: self.kind, bytes: &self.label[..usize::from(self.first)] }
    }

    /// Whether a child can begin with a literal. Not exact beside children that begin with a prefix.
    pub fn may_have_literals(&self) -> bool {
        self.children > self.has.count_ones() || self.has & HAS_PREFIX != 0
    }
}

impl Nodes {
    pub fn with_hashes(hashes: Hashes) -> Nodes {
        let root = |_| Node {
            label: Box::default(),
            tokens: Tokens::None,
            parent: NONE,
            hash: 0,
            next: NONE,
            children: 0,
            children_mixed: 0,
            first: 0,
            kind: Kind::Literal,
            has: 0,
        };
        Nodes {
            roots: std::array::from_fn(root),
            chunks: Vec::new(),
            roomy: BTreeSet::new(),
            segments: Vec::new(),
            buckets: 0,
            live: 0,
            label_bytes: 0,
            hashes,
        }
    }

    pub fn root(index: usize) -> NodeId {
        ROOT + NodeId::try_from(index).expect("there are six")
    }

    pub fn is_root(id: NodeId) -> bool {
        id >= ROOT
    }

    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    pub fn hashes(&self) -> &Hashes {
        &self.hashes
    }

    pub fn get(&self, id: NodeId) -> &Node {
        if id >= ROOT {
            return &self.roots[(id - ROOT) as usize];
        }
        &self.chunks[id as usize / CHUNK_NODES].nodes[id as usize % CHUNK_NODES]
    }

    pub fn get_mut(&mut self, id: NodeId) -> &mut Node {
        if id >= ROOT {
            return &mut self.roots[(id - ROOT) as usize];
        }
        &mut self.chunks[id as usize / CHUNK_NODES].nodes[id as usize % CHUNK_NODES]
    }

    /// The child that begins with this step; `level` is the step's hash.
    pub fn find(&self, parent: NodeId, step: Step<'_>, level: u64) -> Option<NodeId> {
        if self.buckets == 0 {
            return None;
        }
        let hash = self.hashes.edge(level, parent);
        let mut id = *self.bucket(bucket_of(hash, self.buckets));
        while id != NONE {
            let node = self.get(id);
            if node.hash == hash && node.parent == parent && node.step() == step {
                return Some(id);
            }
            id = node.next;
        }
        None
    }

    /// Stores a node that can be found from its parent. The parent itself is not changed.
    pub fn add(&mut self, parent: NodeId, step: Step<'_>, label: Box<[u8]>) -> NodeId {
        self.label_bytes += label.len();
        let hash = self.hashes.edge(self.hashes.level(step), parent);
        let first = u16::try_from(step.bytes.len()).expect("a filter has fewer bytes");
        let tokens = Tokens::None;
        let node = Node { label, tokens, parent, hash, next: NONE, children: 0, children_mixed: 0, first, kind: step.kind, has: 0 };
        let id = self.store(node);
        self.link(id);
        id
    }

    /// Gives the node another place, beginning and label.
    pub fn move_to(&mut self, id: NodeId, parent: NodeId, step: Step<'_>, label: Box<[u8]>) {
        self.unlink(id);
        let hash = self.hashes.edge(self.hashes.level(step), parent);
        let first = u16::try_from(step.bytes.len()).expect("a filter has fewer bytes");
        self.label_bytes += label.len();
        let node = self.get_mut(id);
        let before = std::mem::replace(&mut node.label, label);
        (node.parent, node.hash, node.first, node.kind) = (parent, hash, first, step.kind);
        self.label_bytes -= before.len();
        self.link(id);
    }

    /// Forgets the node. Its parent is not changed.
    pub fn remove(&mut self, id: NodeId) {
        self.unlink(id);
        let number = id as usize / CHUNK_NODES;
        let chunk = &mut self.chunks[number];
        let node = &mut chunk.nodes[id as usize % CHUNK_NODES];
        self.label_bytes -= node.label.len();
        node.label = Box::default();
        node.tokens = Tokens::None;
        node.next = chunk.free;
        chunk.free = id;
        chunk.live -= 1;
        self.roomy.insert(number);
        if chunk.live == 0 {
            *chunk = Chunk { nodes: Vec::new(), free: NONE, live: 0 };
        }
        while self.chunks.last().is_some_and(|chunk| chunk.live == 0) {
            self.chunks.pop();
            self.roomy.remove(&self.chunks.len());
        }
        if self.chunks.len() < self.chunks.capacity() / 4 {
            self.chunks.shrink_to(self.chunks.len() * 2);
        }
    }

    /// Bytes allocated, but for the tokens of nodes that have several.
    pub fn heap_bytes(&self) -> usize {
        let chunks: usize = self.chunks.iter().map(|chunk| chunk.nodes.capacity() * size_of::<Node>()).sum();
        let segments: usize = self.segments.iter().map(|segment| segment.capacity() * size_of::<NodeId>()).sum();
        let outer = self.chunks.capacity() * size_of::<Chunk>() + self.segments.capacity() * size_of::<Vec<NodeId>>();
        chunks + segments + outer + self.label_bytes + self.roomy.len() * 2 * size_of::<usize>()
    }

    fn store(&mut self, node: Node) -> NodeId {
        let number = self.roomy.first().copied().unwrap_or(self.chunks.len());
        if number == self.chunks.len() {
            self.chunks.push(Chunk { nodes: Vec::new(), free: NONE, live: 0 });
            self.roomy.insert(number);
        }
        let chunk = &mut self.chunks[number];
        chunk.live += 1;
        let id = if chunk.free != NONE {
            let id = chunk.free;
            let slot = &mut chunk.nodes[id as usize % CHUNK_NODES];
            chunk.free = slot.next;
            *slot = node;
            id
        } else {
            // The first chunk of a small trie grows with it; more trie means that the next chunk will fill.
            if chunk.nodes.is_empty() && number > 0 {
                chunk.nodes.reserve_exact(CHUNK_NODES);
            }
            chunk.nodes.push(node);
            NodeId::try_from(number * CHUNK_NODES + chunk.nodes.len() - 1).expect("memory ends first")
        };
        assert!(id < ROOT, "memory ends first");
        if chunk.live == CHUNK_NODES {
            self.roomy.remove(&number);
        }
        id
    }

    fn link(&mut self, id: NodeId) {
        self.live += 1;
        if self.live > self.buckets {
            self.grow();
        }
        self.chain(id);
    }

    /// Puts the node in the bucket of its hash.
    fn chain(&mut self, id: NodeId) {
        let bucket = bucket_of(self.get(id).hash, self.buckets);
        let head = std::mem::replace(self.bucket_mut(bucket), id);
        self.get_mut(id).next = head;
    }

    fn unlink(&mut self, id: NodeId) {
        let node = self.get(id);
        let (bucket, next) = (bucket_of(node.hash, self.buckets), node.next);
        let mut at = *self.bucket(bucket);
        if at == id {
            *self.bucket_mut(bucket) = next;
        } else {
            while self.get(at).next != id {
                at = self.get(at).next;
            }
            self.get_mut(at).next = next;
        }
        self.live -= 1;
        // Two at most for a node, so that the table keeps up with the nodes.
        for _ in 0..2 {
            if self.live < self.buckets / 2 {
                self.shrink();
            }
        }
    }

    /// Adds one bucket, whose nodes were all in one other.
    fn grow(&mut self) {
        if self.segments.last().is_none_or(|segment| segment.len() == SEGMENT_BUCKETS) {
            let segment = if self.segments.is_empty() { Vec::new() } else { Vec::with_capacity(SEGMENT_BUCKETS) };
            self.segments.push(segment);
        }
        self.segments.last_mut().expect("just pushed").push(NONE);
        self.buckets += 1;
        if self.buckets > 1 {
            let taken = self.buckets - 1;
            let mut id = std::mem::replace(self.bucket_mut(buddy(taken)), NONE);
            while id != NONE {
                let next = self.get(id).next;
                self.chain(id);
                id = next;
            }
        }
    }

    /// Takes the last bucket away; its nodes go back to where they came from.
    fn shrink(&mut self) {
        if self.buckets <= BUCKETS_MIN && self.live > 0 {
            return;
        }
        let mut id = *self.bucket(self.buckets - 1);
        self.buckets -= 1;
        let segment = self.segments.last_mut().expect("there is a bucket");
        segment.pop();
        if segment.is_empty() {
            self.segments.pop();
        }
        while id != NONE {
            let next = self.get(id).next;
            self.chain(id);
            id = next;
        }
        if self.live == 0 {
            (self.segments, self.buckets) = (Vec::new(), 0);
        }
    }

    fn bucket(&self, number: usize) -> &NodeId {
        &self.segments[number / SEGMENT_BUCKETS][number % SEGMENT_BUCKETS]
    }

    fn bucket_mut(&mut self, number: usize) -> &mut NodeId {
        &mut self.segments[number / SEGMENT_BUCKETS][number % SEGMENT_BUCKETS]
    }
}

/// Of a table with this many buckets, at least one.
fn bucket_of(hash: u32, buckets: usize) -> usize {
    let mask = buckets.next_power_of_two() - 1;
    let bucket = hash as usize & mask;
    if bucket < buckets { bucket } else { bucket & (mask >> 1) }
}

/// The bucket that held the nodes of this one before it was there.
fn buddy(bucket: usize) -> usize {
    bucket & (((bucket + 1).next_power_of_two() - 1) >> 1)
}
