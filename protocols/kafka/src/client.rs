//! What a connection's requests are answered with and from.

use std::net::SocketAddr;
use std::sync::Arc;

use firth_gateway::answer::{Answer, Event, Tag};
use firth_gateway::connection::Full;
use firth_gateway::door::Broker;
use firth_gateway::link::Link;
use firth_gateway::refusal::Refusal;
use firth_gateway::request::Request;
use firth_gateway::streams::StreamInfo;
use firth_gateway::view::LogView;
use firth_model::ids::StreamId;
use uuid::Uuid;

use crate::codec::text::Str;
use crate::config::KafkaSettings;
use crate::handlers::fetch_sessions::FetchSessions;

/// One connection as its handlers see it.
pub struct Client {
    pub broker: Broker,
    pub settings: Arc<KafkaSettings>,
    pub peer: SocketAddr,
    pub sessions: std::sync::Mutex<FetchSessions>,
    local: SocketAddr,
}

impl Client {
    pub fn new(link: &Link, broker: Broker, settings: Arc<KafkaSettings>) -> Client {
        Client { broker, settings, peer: link.peer, sessions: Default::default(), local: link.local }
    }

    /// The address clients are told: the one this client connected to, unless configured otherwise.
    pub fn advertised(&self) -> (Str, i32) {
        match &self.settings.advertise {
            Some((host, port)) => (Str::from(host.as_str()), i32::from(*port)),
            None => (Str::from(self.local.ip().to_canonical().to_string()), i32::from(self.local.port())),
        }
    }

    pub fn view(&self) -> &dyn LogView {
        &**self.broker.view()
    }

    pub fn node_id(&self) -> i32 {
        self.broker.node().id
    }

    /// The stream a request names by topic name, or by topic id in the versions that have ids.
    pub fn stream(&self, name: &str, id: Uuid) -> Option<Arc<StreamInfo>> {
        if id.is_nil() { self.view().stream(name) } else { self.view().stream_by_id(StreamId(id)) }
    }

    /// Asks the shard, and waits for its durable answer.
    pub async fn ask(&self, request: Request) -> Result<Answer, Refusal> {
        self.broker.connect().call(request).await
    }

    /// Asks many things at once, so that one commit carries them; the answers stand in the order of the requests.
    pub async fn ask_all(&self, requests: Vec<Request>) -> Vec<Result<Answer, Refusal>> {
        let mut connection = self.broker.connect();
        let mut answers: Vec<Option<Result<Answer, Refusal>>> = requests.iter().map(|_| None).collect();
        for (place, request) in (0u64..).zip(requests) {
            let mut request = request;
            while let Err(Full(back)) = connection.submit(Tag(place), request) {
                connection.room().await;
                request = back;
            }
        }
        while answers.iter().any(Option::is_none) {
            for event in connection.events().await {
                let Event::Reply { tag, result } = event else { continue };
                let answer = usize::try_from(tag.0).ok().and_then(|place| answers.get_mut(place));
                answer.expect("the tag is a place given above").replace(result);
            }
        }
        answers.into_iter().flatten().collect()
    }
}
