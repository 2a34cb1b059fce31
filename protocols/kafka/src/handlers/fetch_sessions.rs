//! Incremental fetch sessions of one connection (KIP-227).
//!
//! A session remembers which partitions a client reads and what it was last told of each, so that requests and answers carry only
//! what changed. Sessions live with their connection: a client that comes back on another one is told that its session is gone and
//! opens a new one, as after a restart.

use std::collections::HashMap;

use uuid::Uuid;

use crate::codec::text::Str;
use crate::errors;
use crate::messages::fetch::{FetchPartition, FetchRequest};

/// Sessions of one connection. Clients use one for each node they fetch from.
const SESSIONS_MAX: usize = 4;
/// The epoch that asks for a full answer and no session.
const FINAL_EPOCH: i32 = -1;
/// The epoch that opens a session.
const FIRST_EPOCH: i32 = 0;

/// A partition as a session remembers it.
#[derive(Clone, Debug)]
pub struct Watched {
    pub topic: Str,
    pub topic_id: Uuid,
    pub wanted: FetchPartition,
    /// What the last answer said: high watermark and log start.
    pub told: Option<(i64, i64)>,
}

#[derive(Default)]
struct FetchSession {
    epoch: i32,
    /// In the order in which they are served; a partition that gave records goes to the end, so that none starves.
    watched: Vec<Watched>,
}

#[derive(Default)]
pub struct FetchSessions {
    open: HashMap<i32, FetchSession>,
    next_id: i32,
}

/// What one request reads, and in which session.
pub struct Plan {
    /// 0: no session.
    pub session_id: i32,
    /// Whether only what changed is answered.
    pub incremental: bool,
    pub partitions: Vec<Watched>,
}

/// Topic, its id, and the partition's index.
pub type Key = (Str, Uuid, i32);

fn key(watched: &Watched) -> Key {
    (watched.topic.clone(), watched.topic_id, watched.wanted.partition)
}

impl FetchSessions {
    /// Takes a request into its session. An error is the response's error code.
    pub fn plan(&mut self, request: &mut FetchRequest) -> Result<Plan, i16> {
        let asked = take_asked(request);
        let (id, epoch) = (request.session_id, request.session_epoch);
        if epoch == FINAL_EPOCH {
            self.open.remove(&id);
            return Ok(Plan { session_id: 0, incremental: false, partitions: asked });
        }
        if epoch == FIRST_EPOCH {
            self.open.remove(&id);
            let session_id = self.open_session(&asked);
            return Ok(Plan { session_id, incremental: false, partitions: asked });
        }
        let session = self.open.get_mut(&id).ok_or(errors::FETCH_SESSION_ID_NOT_FOUND)?;
        if session.epoch != epoch {
            return Err(errors::INVALID_FETCH_SESSION_EPOCH);
        }
        session.epoch = if epoch == i32::MAX { 1 } else { epoch + 1 };
        session.update(asked, request);
        Ok(Plan { session_id: id, incremental: true, partitions: session.watched.clone() })
    }

    fn open_session(&mut self, asked: &[Watched]) -> i32 {
        if asked.is_empty() || self.open.len() >= SESSIONS_MAX {
            return 0;
        }
        self.next_id = self.next_id % i32::MAX + 1;
        self.open.insert(self.next_id, FetchSession { epoch: 1, watched: asked.to_vec() });
        self.next_id
    }

    /// Remembers what the answer says; `gave_records` are moved to the end of the order.
    pub fn told(&mut self, session_id: i32, told: &HashMap<Key, (i64, i64)>, gave_records: &HashMap<Key, ()>) {
        let Some(session) = self.open.get_mut(&session_id) else { return };
        for watched in &mut session.watched {
            if let Some(news) = told.get(&key(watched)) {
                watched.told = Some(*news);
            }
        }
        let watched = std::mem::take(&mut session.watched);
        let (served, waiting): (Vec<_>, Vec<_>) = watched.into_iter().partition(|watched| gave_records.contains_key(&key(watched)));
        session.watched = waiting;
        session.watched.extend(served);
    }
}

impl FetchSession {
    fn update(&mut self, asked: Vec<Watched>, request: &FetchRequest) {
        let mut forgotten: HashMap<Key, ()> = HashMap::new();
        for topic in &request.forgotten_topics_data {
            for partition in &topic.partitions {
                forgotten.insert((topic.topic.clone(), topic.topic_id, *partition), ());
            }
        }
        if !forgotten.is_empty() {
            self.watched.retain(|watched| !forgotten.contains_key(&key(watched)));
        }
        if asked.is_empty() {
            return;
        }
        let places: HashMap<Key, usize> = self.watched.iter().enumerate().map(|(at, watched)| (key(watched), at)).collect();
        for fresh in asked {
            match places.get(&key(&fresh)) {
                Some(at) => self.watched[*at].wanted = fresh.wanted,
                None => self.watched.push(fresh),
            }
        }
    }
}

fn take_asked(request: &mut FetchRequest) -> Vec<Watched> {
    let mut asked = Vec::new();
    for topic in std::mem::take(&mut request.topics) {
        // A session outlives the frame that the name came in.
        let name = topic.topic.detached();
        for wanted in topic.partitions {
            asked.push(Watched { topic: name.clone(), topic_id: topic.topic_id, wanted, told: None });
        }
    }
    asked
}

/// Names a partition in `told`.
pub fn key_of(watched: &Watched) -> Key {
    key(watched)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::fetch::{FetchTopic, ForgottenTopic};

    fn request(session_id: i32, session_epoch: i32, partitions: &[i32]) -> FetchRequest {
        let partitions: Vec<_> =
            partitions.iter().map(|partition| FetchPartition { partition: *partition, ..FetchPartition::default() }).collect();
        let topics =
            if partitions.is_empty() { Vec::new() } else { vec![FetchTopic { topic: Str::fixed("t"), topic_id: Uuid::nil(), partitions }] };
        FetchRequest { session_id, session_epoch, topics, ..FetchRequest::default() }
    }

    fn places(plan: &Plan) -> Vec<i32> {
        plan.partitions.iter().map(|watched| watched.wanted.partition).collect()
    }

    #[test]
    fn a_session_remembers_forgets_and_rotates() {
        let mut sessions = FetchSessions::default();
        let opened = sessions.plan(&mut request(0, 0, &[1, 2, 3])).expect("opens");
        assert!(opened.session_id > 0 && !opened.incremental);
        let served = [((Str::fixed("t"), Uuid::nil(), 1), ())].into();
        sessions.told(opened.session_id, &HashMap::new(), &served);
        let next = sessions.plan(&mut request(opened.session_id, 1, &[])).expect("continues");
        assert_eq!((next.incremental, places(&next)), (true, vec![2, 3, 1]));
        let mut change = request(opened.session_id, 2, &[4]);
        change.forgotten_topics_data = vec![ForgottenTopic { topic: Str::fixed("t"), topic_id: Uuid::nil(), partitions: vec![3] }];
        assert_eq!(places(&sessions.plan(&mut change).expect("continues")), vec![2, 1, 4]);
    }

    #[test]
    fn wrong_epochs_and_unknown_sessions_are_told() {
        let mut sessions = FetchSessions::default();
        let opened = sessions.plan(&mut request(0, 0, &[1])).expect("opens");
        assert_eq!(sessions.plan(&mut request(opened.session_id, 5, &[])).err(), Some(errors::INVALID_FETCH_SESSION_EPOCH));
        assert_eq!(sessions.plan(&mut request(99, 1, &[])).err(), Some(errors::FETCH_SESSION_ID_NOT_FOUND));
        let closed = sessions.plan(&mut request(opened.session_id, -1, &[7])).expect("reads once");
        assert_eq!((closed.session_id, places(&closed)), (0, vec![7]));
        assert_eq!(sessions.plan(&mut request(opened.session_id, 1, &[])).err(), Some(errors::FETCH_SESSION_ID_NOT_FOUND));
    }
}
