//! Who gets what is published under a subject.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use firth_gateway::live::{Capture, LiveRoute, RouteCache, Routes, Subscriber};
use firth_gateway::streams::StreamInfo;
use firth_gateway::view::RouteView;
use firth_model::filter::Filter;
use firth_model::ids::StreamId;
use firth_model::limits::{ROUTE_CACHE_BYTES_MAX, ROUTE_CACHE_ENTRIES_MAX};
use firth_model::stream_subject::default_capture;
use firth_model::subject::Subject;

use crate::router::cache::Cache;
use crate::router::routes::Router;
use crate::router::token::{Token, TokenKind};
use crate::router::walk::Scratch;

/// The router, and who its tokens stand for. One for a node: connections subscribe, the shard keeps captures.
#[derive(Default)]
pub struct Routing {
    router: Router,
    names: RwLock<Names>,
    next: AtomicU64,
    /// Live subscriptions and explicit captures.
    wanting: AtomicUsize,
    /// The shard's own.
    streams: Mutex<HashMap<StreamId, Capturing>>,
}

#[derive(Default)]
struct Names {
    live: HashMap<u64, (Arc<Subscriber>, u32), foldhash::fast::RandomState>,
    captures: HashMap<u64, Capture, foldhash::fast::RandomState>,
}

/// What is in the router for one stream.
#[derive(Default)]
struct Capturing {
    explicit: Vec<(Token, Filter)>,
    by_name: Option<(Token, Filter)>,
}

impl Routing {
    /// The stream is there, or is changed: what it captures is captured from now on.
    pub fn put(&self, info: &Arc<StreamInfo>) {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        let before = streams.remove(&info.id).unwrap_or_default();
        self.wanting.fetch_add(info.policy.captures.len(), Ordering::AcqRel);
        let by_name = if info.policy.hidden { None } else { default_capture(&info.name) };
        let add = |filter: Filter, by_name| {
            let id = self.name();
            self.names_mut().captures.insert(id, Capture { stream: info.clone(), by_name });
            self.router.subscribe(&filter, Token::capture(id));
            (Token::capture(id), filter)
        };
        let now = Capturing {
            explicit: info.policy.captures.iter().map(|filter| add(filter.clone(), false)).collect(),
            by_name: by_name.map(|filter| add(filter, true)),
        };
        streams.insert(info.id, now);
        self.end(before);
    }

    pub fn remove(&self, stream: StreamId) {
        let before = self.streams.lock().unwrap_or_else(PoisonError::into_inner).remove(&stream);
        before.into_iter().for_each(|before| self.end(before));
    }

    /// The router's version for subjects with this one's first level.
    pub fn version(&self, subject: &Subject) -> u64 {
        self.router.version(subject.levels().next().unwrap_or_default())
    }

    /// The streams that capture the subject now.
    pub fn captures(&self, subject: &Subject) -> Vec<Capture> {
        let mut tokens = Vec::new();
        self.router.matches(subject, &mut Scratch::default(), &mut tokens);
        tokens.sort_unstable();
        tokens.dedup();
        self.names.read().unwrap_or_else(PoisonError::into_inner).captures_of(&tokens)
    }

    fn end(&self, capturing: Capturing) {
        self.wanting.fetch_sub(capturing.explicit.len(), Ordering::AcqRel);
        for (token, filter) in capturing.explicit.into_iter().chain(capturing.by_name) {
            self.router.unsubscribe(&filter, token);
            self.names_mut().captures.remove(&token.id());
        }
    }

    fn name(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    fn names_mut(&self) -> std::sync::RwLockWriteGuard<'_, Names> {
        self.names.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Names {
    /// Each stream once, in no promised order. Of those by name the longest counts alone.
    fn captures_of(&self, tokens: &[Token]) -> Vec<Capture> {
        let found = tokens.iter().filter(|token| token.kind() == TokenKind::Capture).filter_map(|token| self.captures.get(&token.id()));
        let mut captures: Vec<Capture> = Vec::new();
        let mut longest: Option<&Capture> = None;
        let mut add = |capture: &Capture| {
            if captures.iter().all(|other| other.stream.id != capture.stream.id) {
                captures.push(capture.clone());
            }
        };
        let length = |capture: &Capture| capture.stream.name.as_str().len();
        for capture in found {
            if !capture.by_name {
                add(capture);
            } else if longest.is_none_or(|other| length(other) < length(capture)) {
                longest = Some(capture);
            }
        }
        longest.into_iter().for_each(add);
        captures
    }

    fn routes(&self, version: u64, tokens: &[Token]) -> Routes {
        let live = tokens.iter().filter(|token| token.kind() == TokenKind::Live).filter_map(|token| self.live.get(&token.id()));
        let mut live: Vec<&(Arc<Subscriber>, u32)> = live.collect();
        live.sort_unstable_by_key(|(subscriber, subscription)| (subscriber.id, *subscription));
        let of_one = live.chunk_by(|one, other| one.0.id == other.0.id);
        let live = of_one.map(|chunk| LiveRoute {
            subscriber: chunk[0].0.clone(),
            subscriptions: chunk.iter().map(|(_, subscription)| *subscription).collect(),
        });
        Routes { version, live: live.collect(), captures: self.captures_of(tokens) }
    }
}

/// The door's view of it.
pub struct Shared(pub Arc<Routing>);

impl RouteView for Shared {
    fn cache(&self) -> Box<dyn RouteCache> {
        Box::new(Cached { routing: self.0.clone(), cache: Cache::with_bounds(ROUTE_CACHE_ENTRIES_MAX, ROUTE_CACHE_BYTES_MAX) })
    }

    fn is_quiet(&self) -> bool {
        self.0.wanting.load(Ordering::Acquire) == 0
    }

    fn subscribe(&self, subscriber: &Arc<Subscriber>, subscription: u32, filter: &Filter) -> u64 {
        self.0.wanting.fetch_add(1, Ordering::AcqRel);
        let name = self.0.name();
        self.0.names_mut().live.insert(name, (subscriber.clone(), subscription));
        self.0.router.subscribe(filter, Token::live(name));
        name
    }

    fn unsubscribe(&self, name: u64, filter: &Filter) {
        self.0.wanting.fetch_sub(1, Ordering::AcqRel);
        self.0.router.unsubscribe(filter, Token::live(name));
        self.0.names_mut().live.remove(&name);
    }
}

struct Cached {
    routing: Arc<Routing>,
    cache: Cache<Routes>,
}

impl RouteCache for Cached {
    fn routes(&mut self, subject: &Subject) -> Arc<Routes> {
        let routing = &self.routing;
        self.cache.get(&routing.router, subject, |version, tokens| {
            let routes = routing.names.read().unwrap_or_else(PoisonError::into_inner).routes(version, tokens);
            let bytes = size_of::<Routes>() + routes.live.len() * (size_of::<LiveRoute>() + 32) + routes.captures.len() * 8;
            (routes, bytes)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use firth_gateway::streams::Policy;
    use firth_model::names::StreamName;

    fn stream(number: u128, name: &str, captures: &[&str], hidden: bool) -> Arc<StreamInfo> {
        Arc::new(StreamInfo {
            id: StreamId(uuid::Uuid::from_u128(number)),
            name: StreamName::parse(name).expect("a name"),
            partitions: Vec::new(),
            policy: Policy {
                captures: captures.iter().map(|text| Filter::parse(text).expect("a filter")).collect(),
                hidden,
                ..Policy::default()
            },
            settings: Default::default(),
            version: 0,
        })
    }

    fn names(routing: &Routing, subject: &str) -> Vec<String> {
        let captures = routing.captures(&Subject::parse(subject).expect("a subject"));
        let mut names: Vec<String> = captures.iter().map(|capture| capture.stream.name.to_string()).collect();
        names.sort();
        names
    }

    #[test]
    fn of_captures_by_name_the_longest_wins_and_explicit_ones_all_apply() {
        let routing = Routing::default();
        for info in [
            stream(1, "orders", &[], false),
            stream(2, "orders.eu", &["audit/>", "orders/>"], false),
            stream(3, "everything", &["#"], false),
            stream(4, "_filter.1", &["orders/*"], true),
        ] {
            routing.put(&info);
        }
        assert_eq!(names(&routing, "orders"), ["everything", "orders"]);
        assert_eq!(names(&routing, "orders/eu"), ["_filter.1", "everything", "orders.eu"]);
        assert_eq!(names(&routing, "orders/eu/7"), ["everything", "orders.eu"]);
        assert_eq!(names(&routing, "orders/us/7"), ["everything", "orders", "orders.eu"]);
        assert_eq!(names(&routing, "audit/7"), ["everything", "orders.eu"]);
        let before = routing.version(&Subject::parse("audit/7").expect("a subject"));
        routing.put(&stream(2, "orders.eu", &[], false));
        assert_ne!(routing.version(&Subject::parse("audit/7").expect("a subject")), before);
        assert_eq!(names(&routing, "audit/7"), ["everything"]);
        routing.remove(StreamId(uuid::Uuid::from_u128(3)));
        assert_eq!(names(&routing, "audit/7"), [""; 0]);
        assert_eq!(names(&routing, "orders/us/7"), ["orders"]);
    }
}
