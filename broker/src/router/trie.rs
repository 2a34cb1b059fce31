//! Filters as a trie: what begins alike is stored once.
//!
//! A node holds as many literals and `*` as no other filter parts; `pre*`, `#` and `>` always begin a node. A trie has six roots: for
//! each rule for reserved subjects, one for filters that begin with a whole wildcard, and one for the others, which the rule does not
//! concern.

use std::collections::{BTreeSet, HashMap};

use firth_model::filter::{Filter, Reserved};

use super::nodes::{HAS_ANY, HAS_ONE, HAS_PREFIX, HAS_REST, Hashes, NodeId, Nodes};
use super::pattern::{Kind, Pattern, Step};
use super::token::{Token, Tokens};

pub struct Trie {
    pub nodes: Nodes,
    /// Of nodes with children that begin with a prefix: the lengths of those prefixes, in order, each with how many there are.
    pub prefix_lengths: HashMap<NodeId, Vec<(u16, u32)>, foldhash::fast::RandomState>,
    /// Filters that are not written as their pattern is, so that each is added and removed once.
    respelled: BTreeSet<(usize, Box<[u8]>, Token)>,
    respelled_bytes: usize,
    token_bytes: usize,
    lengths_bytes: usize,
}

/// Where a pattern leaves the label of a node: bytes of the label and steps that are the same.
struct Agreement {
    bytes: usize,
    steps: usize,
}

impl Trie {
    pub fn with_hashes(hashes: Hashes) -> Trie {
        Trie {
            nodes: Nodes::with_hashes(hashes),
            prefix_lengths: HashMap::default(),
            respelled: BTreeSet::new(),
            respelled_bytes: 0,
            token_bytes: 0,
            lengths_bytes: 0,
        }
    }

    /// Returns whether something changed: a filter has each token once.
    pub fn add(&mut self, filter: &Filter, pattern: &Pattern<'_>, token: Token) -> bool {
        let Pattern { steps, plain } = pattern;
        let root = root_index(filter.reserved(), pattern.is_named());
        if !plain {
            let text: Box<[u8]> = filter.as_bytes()[..].into();
            if !self.respelled.insert((root, text, token)) {
                return false;
            }
            self.respelled_bytes += filter.as_bytes().len();
        }
        let mut at = Nodes::root(root);
        let mut rest = &steps[..];
        while let Some((&step, behind)) = rest.split_first() {
            let level = self.nodes.hashes().level(step);
            let Some(child) = self.nodes.find(at, step, level) else {
                let further = further_steps(behind);
                at = self.add_child(at, step, label_of(step.bytes, &behind[..further]));
                rest = &behind[further..];
                continue;
            };
            let same = self.agreement(child, behind);
            if same.bytes < self.nodes.get(child).label.len() {
                at = self.split(child, same.bytes);
            } else {
                at = child;
            }
            rest = &behind[same.steps..];
        }
        self.with_tokens(at, |tokens| tokens.add(token, *plain))
    }

    /// Returns whether it was there.
    pub fn remove(&mut self, filter: &Filter, pattern: &Pattern<'_>, token: Token) -> bool {
        let Pattern { steps, plain } = pattern;
        let root = root_index(filter.reserved(), pattern.is_named());
        if !plain {
            if !self.respelled.remove(&(root, filter.as_bytes()[..].into(), token)) {
                return false;
            }
            self.respelled_bytes -= filter.as_bytes().len();
        }
        let mut at = Nodes::root(root);
        let mut rest = &steps[..];
        while let Some((&step, behind)) = rest.split_first() {
            let level = self.nodes.hashes().level(step);
            let Some(child) = self.nodes.find(at, step, level) else { return false };
            let same = self.agreement(child, behind);
            if same.bytes < self.nodes.get(child).label.len() {
                return false;
            }
            at = child;
            rest = &behind[same.steps..];
        }
        if !self.with_tokens(at, |tokens| tokens.remove(token, *plain)) {
            return false;
        }
        self.prune(at);
        true
    }

    /// Bytes allocated.
    pub fn heap_bytes(&self) -> usize {
        // A tree of the standard library is at least half full, and a table of it at least seven sixteenths.
        let respelled = self.respelled.len() * 2 * size_of::<(usize, Box<[u8]>, Token)>() + self.respelled_bytes;
        let lengths = self.prefix_lengths.capacity() * (size_of::<(NodeId, Vec<(u16, u32)>)>() + 1) * 8 / 7 + self.lengths_bytes;
        self.nodes.heap_bytes() + self.token_bytes + respelled + lengths
    }

    fn with_tokens(&mut self, id: NodeId, change: impl FnOnce(&mut Tokens) -> bool) -> bool {
        let tokens = &mut self.nodes.get_mut(id).tokens;
        let before = tokens.heap_bytes();
        let changed = change(tokens);
        self.token_bytes = self.token_bytes + tokens.heap_bytes() - before;
        changed
    }

    fn add_child(&mut self, parent: NodeId, step: Step<'_>, label: Box<[u8]>) -> NodeId {
        let id = self.nodes.add(parent, step, label);
        let node = self.nodes.get_mut(parent);
        node.children += 1;
        node.children_mixed ^= id;
        node.has |= has_bit(step.kind);
        if step.kind == Kind::Prefix {
            self.count_prefix(parent, self.nodes.get(id).first, true);
        }
        id
    }

    /// Makes two nodes of one: the upper, which is returned, has the label's first `bytes`. The lower keeps its id, so its children
    /// stay where they are.
    fn split(&mut self, id: NodeId, bytes: usize) -> NodeId {
        let node = self.nodes.get(id);
        let parent = node.parent;
        let kind = node.kind;
        let upper: Box<[u8]> = node.label[..bytes].into();
        let first: Box<[u8]> = node.step().bytes.into();
        let lower = node.label[bytes + 1..].to_vec();
        let (lower_step, lower_label) = step_of(&lower);
        let above = self.nodes.add(parent, Step { kind, bytes: &first }, upper);
        self.nodes.move_to(id, above, lower_step, lower_label.into());
        self.nodes.get_mut(parent).children_mixed ^= id ^ above;
        let node = self.nodes.get_mut(above);
        (node.children, node.children_mixed, node.has) = (1, id, has_bit(lower_step.kind));
        above
    }

    /// Removes the node if no filter needs it any more, and then those above it.
    fn prune(&mut self, from: NodeId) {
        let mut id = from;
        while !Nodes::is_root(id) {
            let node = self.nodes.get(id);
            if !node.tokens.is_empty() || node.children > 1 {
                return;
            }
            if node.children == 1 {
                self.merge(id, node.children_mixed);
                return;
            }
            let (parent, kind, first) = (node.parent, node.kind, node.first);
            self.nodes.remove(id);
            let above = self.nodes.get_mut(parent);
            above.children -= 1;
            above.children_mixed ^= id;
            match kind {
                Kind::Prefix => self.count_prefix(parent, first, false),
                kind => above.has &= !has_bit(kind),
            }
            id = parent;
        }
    }

    /// Makes one node of a node and its only child, if that begins with what a label can hold. The child's id stays, for its children.
    fn merge(&mut self, id: NodeId, child: NodeId) {
        let (node, below) = (self.nodes.get(id), self.nodes.get(child));
        if !matches!(below.kind, Kind::Literal | Kind::One) {
            return;
        }
        let parent = node.parent;
        let kind = node.kind;
        let first: Box<[u8]> = node.step().bytes.into();
        let between: &[u8] = if below.kind == Kind::One { b"/*" } else { b"/" };
        let label = [&node.label[..], between, &below.label[..]].concat();
        self.nodes.remove(id);
        self.nodes.move_to(child, parent, Step { kind, bytes: &first }, label.into());
        self.nodes.get_mut(parent).children_mixed ^= id ^ child;
    }

    fn count_prefix(&mut self, parent: NodeId, length: u16, more: bool) {
        let lengths = self.prefix_lengths.entry(parent).or_default();
        let before = lengths.capacity();
        match lengths.binary_search_by_key(&length, |&(length, _)| length) {
            Ok(at) if more => lengths[at].1 += 1,
            Ok(at) if lengths[at].1 > 1 => lengths[at].1 -= 1,
            Ok(at) => drop(lengths.remove(at)),
            Err(at) => {
                lengths.reserve_exact(1);
                lengths.insert(at, (length, 1));
            }
        }
        if lengths.is_empty() {
            lengths.shrink_to_fit();
            self.nodes.get_mut(parent).has &= !HAS_PREFIX;
        }
        self.lengths_bytes = self.lengths_bytes + lengths.capacity() * size_of::<(u16, u32)>() - before * size_of::<(u16, u32)>();
        if lengths.is_empty() {
            self.prefix_lengths.remove(&parent);
            if self.prefix_lengths.len() < self.prefix_lengths.capacity() / 8 {
                self.prefix_lengths.shrink_to(self.prefix_lengths.len() * 2);
            }
        }
    }

    /// How much of the label behind its first level the steps repeat, in whole levels.
    fn agreement(&self, id: NodeId, steps: &[Step<'_>]) -> Agreement {
        let node = self.nodes.get(id);
        let mut same = Agreement { bytes: usize::from(node.first), steps: 0 };
        while let Some(step) = steps.get(same.steps) {
            let Some(text) = label_text(step) else { break };
            let Some(behind) = node.label.get(same.bytes + 1..).and_then(|label| label.strip_prefix(text)) else { break };
            if !matches!(behind, [] | [b'/', ..]) {
                break;
            }
            same.bytes += 1 + text.len();
            same.steps += 1;
        }
        same
    }
}

/// Which root the filters of a rule hang at. `named`: they begin with a literal or a prefix.
pub fn root_index(reserved: Reserved, named: bool) -> usize {
    let rule = match reserved {
        Reserved::Matched => 0,
        Reserved::DollarHidden => 1,
        Reserved::Hidden => 2,
    };
    if named { rule + 3 } else { rule }
}

fn has_bit(kind: Kind) -> u8 {
    match kind {
        Kind::Literal => 0,
        Kind::One => HAS_ONE,
        Kind::Prefix => HAS_PREFIX,
        Kind::Any => HAS_ANY,
        Kind::Rest => HAS_REST,
    }
}

/// How many of the steps a node's label can hold behind its first level. Nothing follows `>`.
fn further_steps(behind: &[Step<'_>]) -> usize {
    behind.iter().take_while(|step| label_text(step).is_some()).count()
}

/// How a level behind the first reads in a label, if it may stand there. No literal reads `*`.
fn label_text<'a>(step: &Step<'a>) -> Option<&'a [u8]> {
    match step.kind {
        Kind::Literal => Some(step.bytes),
        Kind::One => Some(b"*"),
        _ => None,
    }
}

fn label_of(first: &[u8], further: &[Step<'_>]) -> Box<[u8]> {
    let texts = || further.iter().filter_map(label_text);
    let mut label = Vec::with_capacity(first.len() + texts().map(|text| 1 + text.len()).sum::<usize>());
    label.extend_from_slice(first);
    for text in texts() {
        label.push(b'/');
        label.extend_from_slice(text);
    }
    label.into()
}

/// What begins a node whose label is this text, and the label itself.
fn step_of(text: &[u8]) -> (Step<'_>, &[u8]) {
    let end = text.iter().position(|&byte| byte == b'/').unwrap_or(text.len());
    match &text[..end] {
        b"*" => (Step { kind: Kind::One, bytes: b"" }, &text[end..]),
        bytes => (Step { kind: Kind::Literal, bytes }, text),
    }
}
