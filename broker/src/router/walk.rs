//! Matches a subject against a trie, level by level.
//!
//! All places that the levels so far lead to are known at once, so nothing is tried twice: a place below no `#` is reached at one
//! level only, a `#` that was reached stays reached and is entered once, and a place behind it is reached at most once for each level.
//! Work is at most the nodes reached (each with its label) times the levels of the subject, and the tokens found; each step from a
//! node finds at most four children by their hash, and one more for each length of the prefixes it knows. Only a `#` before the end
//! of a filter brings in the factor of levels: a hundred thousand of those, made to nearly match, cost seconds under the reader's lock,
//! so captures may have few (`CAPTURED_HASHES_MAX`), and no protocol's subscriptions spell one.

use std::collections::HashSet;

use firth_model::escape::{CANONICAL, Part};
use firth_model::filter::Reserved;
use firth_model::subject::Subject;

use super::nodes::{HAS_ANY, HAS_ONE, HAS_PREFIX, HAS_REST, NodeId, Nodes};
use super::pattern::{Kind, Step};
use super::token::Token;
use super::trie::{Trie, root_index};

/// What a match needs to remember; kept by the caller, so that matching allocates nothing once it has grown.
#[derive(Default)]
pub struct Scratch {
    now: Vec<Place>,
    next: Vec<Place>,
    /// Each `#` that was reached and more follows.
    open: Vec<NodeId>,
    /// Each `#` and `>` that was reached from behind another `#`.
    entered: HashSet<NodeId, foldhash::fast::RandomState>,
    level: Level,
}

/// More than this is given back after a match.
const PLACES_KEPT_MAX: usize = 4096;

/// What the filter's levels up to here match: the label of a node up to `at`.
#[derive(Clone, Copy)]
struct Place {
    node: NodeId,
    at: u16,
    /// Behind a `#`: the same node can be reached at another level again.
    behind_any: bool,
}

/// The bytes of the level at hand and the hashes of its prefixes, made when a node asks for them.
#[derive(Default)]
struct Level {
    made: bool,
    bytes: Vec<u8>,
    prefixes: Vec<u64>,
}

const ONE: Step<'static> = Step { kind: Kind::One, bytes: b"" };
const ANY: Step<'static> = Step { kind: Kind::Any, bytes: b"" };
const REST: Step<'static> = Step { kind: Kind::Rest, bytes: b"" };

/// One match: the trie, what is remembered, and where tokens go.
struct Walk<'a> {
    trie: &'a Trie,
    scratch: &'a mut Scratch,
    out: &'a mut Vec<Token>,
    one: u64,
    any: u64,
    rest: u64,
}

/// Appends the tokens of all filters of the trie that match.
pub fn walk(trie: &Trie, subject: &Subject, scratch: &mut Scratch, out: &mut Vec<Token>) {
    if trie.nodes.is_empty() {
        return;
    }
    scratch.clear();
    let hashes = trie.nodes.hashes();
    let (one, any, rest) = (hashes.level(ONE), hashes.level(ANY), hashes.level(REST));
    let mut walk = Walk { trie, scratch, out, one, any, rest };
    for (reserved, hidden) in
        [(Reserved::Matched, false), (Reserved::DollarHidden, subject.begins_with_dollar()), (Reserved::Hidden, subject.is_reserved())]
    {
        walk.enter(Place { node: Nodes::root(root_index(reserved, true)), at: 0, behind_any: false });
        if !hidden {
            walk.enter(Place { node: Nodes::root(root_index(reserved, false)), at: 0, behind_any: false });
        }
    }
    let mut places = Vec::new();
    std::mem::swap(&mut walk.scratch.now, &mut walk.scratch.next);
    for level in subject.levels() {
        if walk.scratch.now.is_empty() && walk.scratch.open.is_empty() {
            break;
        }
        std::mem::swap(&mut places, &mut walk.scratch.now);
        walk.scratch.level.made = false;
        let literal = Step { kind: Kind::Literal, bytes: level };
        let hash = hashes.level(literal);
        let opened = walk.scratch.open.len();
        for &place in &places {
            walk.pass(place, literal, hash);
        }
        for index in 0..opened {
            walk.pass(Place { node: walk.scratch.open[index], at: 0, behind_any: true }, literal, hash);
        }
        places.clear();
        std::mem::swap(&mut walk.scratch.now, &mut walk.scratch.next);
        std::mem::swap(&mut walk.scratch.next, &mut places);
    }
    for index in 0..walk.scratch.now.len() {
        let place = walk.scratch.now[index];
        if trie.nodes.get(place.node).ends_at(place.at) {
            walk.emit(place.node);
        }
    }
}

impl Walk<'_> {
    /// From one place over one level of the subject.
    fn pass(&mut self, place: Place, literal: Step<'_>, hash: u64) {
        let label = &self.trie.nodes.get(place.node).label[usize::from(place.at)..];
        let Some(text) = label.get(1..) else { return self.descend(place.node, place.behind_any, literal, hash) };
        let length = match text.strip_prefix(literal.bytes) {
            Some([] | [b'/', ..]) => literal.bytes.len(),
            _ if matches!(text, [b'*'] | [b'*', b'/', ..]) => 1,
            _ => return,
        };
        self.enter(Place { at: place.at + 1 + narrow(length), ..place });
    }

    /// From the end of a node to its children.
    fn descend(&mut self, id: NodeId, behind_any: bool, literal: Step<'_>, hash: u64) {
        let node = self.trie.nodes.get(id);
        if node.may_have_literals() {
            self.child(id, literal, hash, behind_any);
        }
        if node.has & HAS_ONE != 0 {
            self.child(id, ONE, self.one, behind_any);
        }
        if node.has & HAS_REST != 0
            && let Some(rest) = self.trie.nodes.find(id, REST, self.rest)
            && (!behind_any || self.scratch.entered.insert(rest))
        {
            self.emit(rest);
        }
        if node.has & HAS_PREFIX != 0
            && let Some(lengths) = self.trie.prefix_lengths.get(&id)
        {
            let mut level = std::mem::take(&mut self.scratch.level);
            level.make(literal.bytes, self.trie);
            for &(length, _) in lengths {
                let Some(bytes) = level.bytes.get(..usize::from(length)) else { break };
                self.child(id, Step { kind: Kind::Prefix, bytes }, level.prefixes[usize::from(length)], behind_any);
            }
            self.scratch.level = level;
        }
    }

    fn child(&mut self, parent: NodeId, step: Step<'_>, hash: u64, behind_any: bool) {
        if let Some(node) = self.trie.nodes.find(parent, step, hash) {
            self.enter(Place { node, at: narrow(step.bytes.len()), behind_any });
        }
    }

    /// Is at a place, and so in the `#` that follows.
    fn enter(&mut self, place: Place) {
        let node = self.trie.nodes.get(place.node);
        self.scratch.next.push(place);
        if node.has & HAS_ANY != 0
            && node.ends_at(place.at)
            && let Some(any) = self.trie.nodes.find(place.node, ANY, self.any)
            && (!place.behind_any || self.scratch.entered.insert(any))
        {
            let node = self.trie.nodes.get(any);
            // What ends with a `#` matches whatever follows.
            if node.ends_at(0) {
                self.emit(any);
            }
            if !node.ends_at(0) || node.children > 0 {
                self.scratch.open.push(any);
            }
        }
    }

    fn emit(&mut self, id: NodeId) {
        let (plain, respelled) = self.trie.nodes.get(id).tokens.slices();
        self.out.extend_from_slice(plain);
        self.out.extend_from_slice(respelled);
    }
}

impl Scratch {
    fn clear(&mut self) {
        self.now.clear();
        self.next.clear();
        self.open.clear();
        self.entered.clear();
        if self.now.capacity() + self.next.capacity() + self.open.capacity() > 3 * PLACES_KEPT_MAX {
            self.now.shrink_to(PLACES_KEPT_MAX);
            self.next.shrink_to(PLACES_KEPT_MAX);
            self.open.shrink_to(PLACES_KEPT_MAX);
        }
        if self.entered.capacity() > 2 * PLACES_KEPT_MAX {
            self.entered.shrink_to(PLACES_KEPT_MAX);
        }
    }
}

impl Level {
    fn make(&mut self, text: &[u8], trie: &Trie) {
        if !self.made {
            self.bytes.clear();
            CANONICAL.read(text, Part::Level, |piece| self.bytes.extend_from_slice(piece));
            trie.nodes.hashes().prefixes(&self.bytes, &mut self.prefixes);
            self.made = true;
        }
    }
}

fn narrow(length: usize) -> u16 {
    u16::try_from(length).expect("no level is longer than a filter")
}
