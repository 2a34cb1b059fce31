//! The path of a record, as a traced publish walks it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use firth_archive::store::MemoryStore;
use firth_broker::groups::GroupSettings;
use firth_broker::node::{Node, NodeParts};
use firth_gateway::door::NodeInfo;
use firth_gateway::link::{Link, StopSignal};
use firth_gateway::protocol::Protocol;
use firth_gateway::request::{Declare, Request as DoorRequest};
use firth_gateway::streams::Policy;
use firth_journal::options::Options;
use firth_journal::simdisk::{Dice, SimDisk};
use firth_kafka::apis::Request;
use firth_kafka::codec::text::Str;
use firth_kafka::envelope::{RequestHeader, write_request};
use firth_kafka::messages::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use firth_kafka::{Kafka, KafkaSettings};
use firth_model::batch_builder::{BatchBuilder, Draft};
use firth_model::compression::Codec;
use firth_model::names::StreamName;
use firth_model::time::Millis;

/// As drawn in ARCHITECTURE.md.
const PATH: [&str; 11] = [
    "codec.decode",
    "session",
    "Connection::submit",
    "Shard::publish",
    "Partition::apply",
    "Journal::append",
    "Disk::write",
    "Disk::sync",
    "Shard::durable",
    "Connection::events",
    "codec.encode",
];

#[derive(Clone, Default)]
struct Hops(Arc<Mutex<Vec<String>>>);

impl Hops {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

struct HopOf<'a>(&'a mut Option<String>);

impl Visit for HopOf<'_> {
    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "hop" {
            *self.0 = Some(value.to_owned());
        }
    }
}

impl<S: tracing::Subscriber> Layer<S> for Hops {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let mut hop = None;
        if event.metadata().target() == "path" {
            event.record(&mut HopOf(&mut hop));
        }
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(hop);
    }
}

fn node() -> Node {
    let mut dice = Dice(1);
    let parts = NodeParts {
        disk: Arc::new(SimDisk::of_bytes(1 << 30)),
        store: Arc::new(MemoryStore::default()),
        segments: Arc::new(firth_archive::store::MemoryStore::default()),
        archive: firth_broker::archiving::ArchiveSettings::default(),
        segment_dice: Box::new(|| 7),
        journal: Options {
            extent_bytes: Some(1 << 20),
            clock: Arc::new(|| Millis(1)),
            cluster_id: [1; 16],
            reserve_extents: 1,
            random: Box::new(move || dice.sixteen()),
        },
        clock: Arc::new(|| Millis(1)),
        watch: firth_broker::clock_watch::ClockWatch::over(Arc::new(|| Millis(1)), Arc::new(|| Millis(1))),
        dice: Box::new(|| 7),
        info: NodeInfo { id: 1, cluster: uuid::Uuid::nil() },
        groups: GroupSettings::default(),
        queues: firth_broker::cursors::limits::QueueLimits::default(),
        memory: firth_model::ledger::Shares::default(),
    };
    Node::open(parts).expect("an empty disk opens")
}

fn produce() -> Vec<u8> {
    let records = BatchBuilder::with_codec(Codec::None).record(Draft { value: Some(b"hello"), ..Draft::default() }).build();
    let partition_data = vec![PartitionProduceData { index: 0, records: Some(records) }];
    let topic_data = vec![TopicProduceData { name: Str::fixed("t"), partition_data, ..TopicProduceData::default() }];
    let request = ProduceRequest { acks: -1, timeout_ms: 1000, topic_data, ..ProduceRequest::default() };
    let header = RequestHeader { api_key: 0, api_version: 9, correlation_id: 1, client_id: None };
    write_request(&header, &Request::from(request)).concat()
}

async fn exchange(mut client: DuplexStream) {
    client.write_all(&produce()).await.expect("sent");
    let length = client.read_u32().await.expect("answered");
    let mut answer = vec![0; length as usize];
    client.read_exact(&mut answer).await.expect("whole");
}

#[test]
fn a_publish_takes_the_path_of_the_architecture() {
    let hops = Hops::default();
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(hops.clone())).expect("the only one");
    let node = node();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let walked = runtime.block_on(async {
        let name = StreamName::parse("t").expect("a name");
        let declare = Declare { name, partitions: 1, policy: Policy::default(), settings: BTreeMap::new() };
        node.broker().connect().call(DoorRequest::Declare(Box::new(declare))).await.expect("declared");
        hops.take();
        let (client, stream) = tokio::io::duplex(1 << 16);
        let (_stop, stopping) = tokio::sync::watch::channel(false);
        let address = "127.0.0.1:9092".parse().expect("an address");
        let link = Link { stream: Box::new(stream), peer: address, local: address, stop: StopSignal(stopping) };
        let serving = tokio::spawn(Kafka::new(KafkaSettings::default()).serve(link, node.broker().clone()));
        exchange(client).await;
        serving.await.expect("ended").expect("by the client");
        hops.take()
    });
    node.stop();
    println!("{}", walked.join(" -> "));
    assert_eq!(walked, PATH);
}
