//! The life of a node: from its configuration to its last group.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use firth_broker::archiving::ArchiveSettings;
use firth_broker::clock_watch::ClockWatch;
use firth_broker::groups::GroupSettings;
use firth_broker::node::{Node, NodeParts};
use firth_gateway::door::NodeInfo;
use firth_gateway::link::StopSignal;
use firth_gateway::protocol::Protocol;
use firth_kafka::{Kafka, KafkaSettings};
use firth_model::limits::{COMPACTION_MAP_BYTES, SEGMENT_BYTES};
use firth_model::time::{Clock, Millis};
use firth_mqtt::mqtt::Mqtt;

use crate::config::{Config, Listener};
use crate::identity;
use crate::listen::{Door, bind, serve};
use crate::memory;
use crate::pace;

/// How long connections may take to finish what they were asked before the node stops without them.
const DRAIN_MAX: Duration = Duration::from_secs(8);

/// Runs a node until SIGTERM or SIGINT. `banner` gets what a person at the terminal should see, once all listeners accept.
pub fn run(config: &Config, banner: impl FnOnce(&str)) -> Result<()> {
    let lock = identity::lock(&config.data)?;
    let identity = identity::read_or_make(&config.data)?;
    let node = open(config, &identity)?;
    let runtime = pace::keep(tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("connections")).build()?;
    let served = runtime.block_on(listen_and_wait(config, &node, banner));
    runtime.shutdown_timeout(Duration::from_secs(1));
    node.stop();
    drop(lock);
    served
}

fn open(config: &Config, identity: &identity::Identity) -> Result<Node> {
    let disk = firth_journal::disk::FileDisk::open(&config.data.join("journal")).context("cannot open the journal")?;
    let store = firth_archive::store::DirectoryStore::open(&config.data.join("archive")).context("cannot open the archive")?;
    let watch = ClockWatch::over(system_clock(), steady_clock());
    let mut memory = memory::shares(config.memory_bytes);
    memory.tail_cache = config.tail_bytes.unwrap_or(memory.tail_cache);
    memory.block_cache = config.block_bytes.unwrap_or(memory.block_cache);
    let segments = crate::archive::segment_store(config)?;
    // A segment is built in memory.
    let segment_bytes = usize::try_from(memory.block_cache).unwrap_or(SEGMENT_BYTES).min(config.segment_bytes);
    let parts = NodeParts {
        disk: Arc::new(disk),
        store: Arc::new(store),
        segments,
        archive: ArchiveSettings {
            journal_bytes_max: config.journal_bytes_max,
            after_ms: config.archive_after_ms,
            segment_bytes,
            // Less than half full, its records lie with those of other partitions.
            own_bytes: segment_bytes as u64 / 2,
            map_bytes: usize::try_from(memory.block_cache).unwrap_or(COMPACTION_MAP_BYTES).min(COMPACTION_MAP_BYTES),
            ..ArchiveSettings::default()
        },
        segment_dice: Box::new(|| uuid::Uuid::new_v4().as_u128()),
        journal: firth_journal::options::Options {
            extent_bytes: config.extent_bytes,
            clock: watch.clock(),
            cluster_id: *identity.cluster.as_bytes(),
            reserve_extents: 2,
            random: Box::new(|| *uuid::Uuid::new_v4().as_bytes()),
        },
        clock: watch.clock(),
        watch,
        dice: Box::new(|| uuid::Uuid::new_v4().as_u128()),
        info: NodeInfo { id: config.node_id, cluster: identity.cluster },
        groups: GroupSettings {
            initial_rebalance_delay_ms: config.rebalance_delay_ms,
            session_timeout_min_ms: config.session_ms_min,
            session_timeout_max_ms: config.session_ms_max,
            ..GroupSettings::default()
        },
        queues: config.queues,
        memory,
    };
    // The directories were made without their names being durable; nothing was acknowledged in them yet.
    let data = config.data.canonicalize().context("the data directory is gone")?;
    for directory in [data.parent(), Some(&*data), Some(&*data.join("journal"))].into_iter().flatten() {
        std::fs::File::open(directory)
            .and_then(|names| names.sync_all())
            .with_context(|| format!("cannot sync {}", directory.display()))?;
    }
    Node::open(parts).with_context(|| format!("cannot start on {}", config.data.display()))
}

/// The one place that reads the system's clock.
#[expect(clippy::disallowed_methods)]
pub(crate) fn system_clock() -> Clock {
    Arc::new(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    })
}

fn steady_clock() -> Clock {
    let began = Instant::now();
    Arc::new(move || Millis(i64::try_from(began.elapsed().as_millis()).unwrap_or(i64::MAX)))
}

async fn listen_and_wait(config: &Config, node: &Node, banner: impl FnOnce(&str)) -> Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let (stop, stopping) = watch::channel(false);
    let mut doors = Vec::new();
    let protocols = Protocols::of(config);
    for listener in &config.listeners {
        doors.push(bind(protocols.find(listener), listener.address)?);
    }
    announce(config, &doors, banner)?;
    let mut serving = JoinSet::new();
    for door in doors {
        serving.spawn(door.protocol.run(node.broker().clone(), StopSignal(stopping.clone())));
        serving.spawn(serve(door, node.broker().clone(), stopping.clone()));
    }
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping");
    stop.send_replace(true);
    let drained = tokio::time::timeout(DRAIN_MAX, async { while serving.join_next().await.is_some() {} }).await;
    if drained.is_err() {
        tracing::warn!("connections that did not end in time are cut");
    }
    Ok(())
}

/// What a node speaks; listeners of one protocol share it.
struct Protocols {
    kafka: Arc<Kafka>,
    mqtt: Arc<Mqtt>,
    mqtt_ws: Arc<Mqtt>,
}

impl Protocols {
    fn of(config: &Config) -> Protocols {
        let kafka = KafkaSettings { advertise: config.advertise.clone(), auto_create: config.auto_create, partitions: config.partitions };
        let mqtt = Mqtt::new(config.mqtt.clone());
        let mqtt_ws = Arc::new(mqtt.over_websocket());
        Protocols { kafka: Arc::new(Kafka::new(kafka)), mqtt: Arc::new(mqtt), mqtt_ws }
    }

    fn find(&self, listener: &Listener) -> Arc<dyn Protocol> {
        match listener.protocol {
            "mqtt" => self.mqtt.clone(),
            "mqtt-ws" => self.mqtt_ws.clone(),
            _ => self.kafka.clone(),
        }
    }
}

/// Says that all listeners accept: in the ready file and on the terminal.
fn announce(config: &Config, doors: &[Door], banner: impl FnOnce(&str)) -> Result<()> {
    let addresses: BTreeMap<&str, String> = doors.iter().map(|door| (door.protocol.describe().name, door.address.to_string())).collect();
    if let Some(path) = &config.ready_file {
        let ready = serde_json::json!({ "pid": std::process::id(), "listeners": addresses });
        identity::write_whole(path, ready.to_string().as_bytes())?;
    }
    let mut text = format!("Firth {} keeps its data in {}\n", env!("CARGO_PKG_VERSION"), config.data.display());
    for (name, address) in &addresses {
        text.push_str(&format!("  {name:<8}{address}\n"));
    }
    if let Some(kafka) = addresses.get("kafka") {
        text.push_str(&format!("try:\n  echo hello | kcat -b {kafka} -P -t greetings\n  kcat -b {kafka} -C -t greetings -e\n"));
    }
    if let Some(mqtt) = doors.iter().find(|door| door.protocol.describe().name == "mqtt") {
        let (host, port) = (mqtt.address.ip(), mqtt.address.port());
        text.push_str(&format!("  mosquitto_sub -h {host} -p {port} -t 'greetings/#' -v\n"));
    }
    text.push_str("firth ready\n");
    banner(&text);
    Ok(())
}
