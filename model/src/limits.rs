//! Every bound of the product, in one place, with its reason.

/// Largest group in the journal: one big stream cannot hold the commit of all others for long.
pub const GROUP_BYTES_MAX: u32 = 4 << 20;
/// Extent size when the volume allows it; a first start on a small volume takes a sixteenth of it.
pub const EXTENT_BYTES_MAX: u32 = 64 << 20;
/// Smallest extent: below it a largest request would not fit.
pub const EXTENT_BYTES_MIN: u32 = 4 << 20;
/// Journal bytes between two checkpoints, so that start-up replays at most this much.
pub const REPLAY_BYTES_MAX: u64 = 256 << 20;
/// Recent groups kept in memory for readers at the end of the log.
pub const TAIL_CACHE_BYTES: u64 = 128 << 20;
/// Directories of sealed extents kept in memory for readers behind the tail.
pub const DIRECTORY_CACHE_BYTES: u64 = 64 << 20;
/// Directories of segments kept in memory.
pub const SEGMENT_DIRECTORY_CACHE_BYTES: u64 = 32 << 20;
/// Largest single read of extents: long enough to run at the rate of a disk.
pub const COLD_READ_AT_ONCE: u64 = 1 << 20;
/// A segment is finished when it reaches this size: it is built in memory, so it may not be much larger.
pub const SEGMENT_BYTES: usize = 32 << 20;
/// A partition with this much in one go gets segments of its own, so that its readers pass over nobody else's records.
pub const OWN_SEGMENT_BYTES: u64 = 16 << 20;
/// Bytes that one archive job moves: what a crash may have it do again.
pub const JOB_BYTES: u64 = 256 << 20;
/// Partitions of one archive job: their replacements go into few journal entries.
pub const JOB_PARTITIONS: usize = 16 << 10;
/// Small segments are merged when there are so many of them.
pub const MERGE_SEGMENTS_MIN: usize = 8;
/// Blocks of segments kept in memory for readers of old records.
pub const BLOCK_CACHE_BYTES: u64 = 128 << 20;
/// A node believes it has at least this: with less even one largest batch on its way in and out would not fit.
pub const MEMORY_BYTES_MIN: u64 = 128 << 20;
/// Part of the node's memory that one cache or queue may have.
pub const MEMORY_SHARES_DIVISOR: u64 = 16;
/// Bytes of records in answers that no socket took yet, over all connections: a slow consumer holds what it asked for until it
/// reads it.
pub const RESPONSE_BYTES_UNSENT_MAX: usize = 256 << 20;
/// Records of a node that carry a time to live and wait for it: about 50 bytes of memory each.
pub const EXPIRING_RECORDS_MAX: usize = 1_000_000;
/// Hashes of keys while a partition is compacted; what does not fit waits for the next round.
pub const COMPACTION_MAP_BYTES: usize = 64 << 20;
/// Threads that read behind the tail cache; four keep a disk's queue busy without fighting over two cores.
pub const COLD_READ_THREADS: usize = 4;
/// Partitions of a node. Beyond this start-up and memory figures are not tested.
pub const PARTITIONS_MAX: u32 = 200_000;
/// Partitions of one stream.
pub const STREAM_PARTITIONS_MAX: u32 = 100_000;
/// Levels of a subject: more than any tree of names that people keep, and few enough that a hostile filter stays cheap. 200 separators, as
/// in Mosquitto.
pub const SUBJECT_LEVELS_MAX: usize = 201;
/// Bytes of a subject in canonical text.
pub const SUBJECT_BYTES_MAX: usize = 8 << 10;
/// Levels of a filter: those of the longest subject, and a closing `#`.
pub const FILTER_LEVELS_MAX: usize = SUBJECT_LEVELS_MAX + 1;
/// Bytes of a filter in canonical text: those of the longest subject, and a closing `/#`.
pub const FILTER_BYTES_MAX: usize = SUBJECT_BYTES_MAX + 2;
/// Idempotent producers remembered per node; the ones idle longest are forgotten first.
pub const PRODUCERS_MAX: usize = 100_000;
/// An idempotent producer is forgotten after a day without a batch.
pub const PRODUCER_IDLE_MS: i64 = 24 * 60 * 60 * 1000;
/// Producer ids reserved by one durable entry.
pub const PRODUCER_ID_BLOCK: i64 = 1000;
/// Members of one group.
pub const GROUP_MEMBERS_MAX: usize = 2_000;
/// Bytes of requests that wait for the shard, over all connections: Kafka's `queued.max.request.bytes` idea.
pub const REQUEST_BYTES_IN_FLIGHT_MAX: usize = 256 << 20;
/// One request, as large as Apache Kafka's default `socket.request.max.bytes`.
pub const REQUEST_BYTES_MAX: usize = 100 << 20;
/// Requests of one connection that wait for their answer; enough for a client that pipelines one batch a request.
pub const REQUESTS_IN_FLIGHT_MAX: usize = 4096;
/// Metadata text a client may keep beside a committed offset: Apache Kafka's `offset.metadata.max.bytes`.
pub const CURSOR_METADATA_BYTES_MAX: usize = 4096;
/// `#` before the end of a filter, in the captures of all streams of a node: each may be tried again at every level of a subject, 0.1 ms
/// for each at the longest subjects, while changes of subscriptions wait.
pub const CAPTURED_HASHES_MAX: usize = 256;
/// Bytes of live messages that one stalled connection holds.
pub const LIVE_BYTES_MAX: usize = 8 << 20;
/// Subjects whose routes one connection keeps: a publisher usually has a few.
pub const ROUTE_CACHE_ENTRIES_MAX: usize = 1024;
/// Bytes of what one connection keeps of routes.
pub const ROUTE_CACHE_BYTES_MAX: usize = 256 << 10;
/// Bytes of an MQTT CONNECT, and of all that a client makes a node keep before it said who it is: a will of full length fits.
pub const MQTT_CONNECT_BYTES_MAX: u32 = 320 << 10;
/// How long an MQTT client may take until its CONNECT is there; half-open connections cost no longer.
pub const MQTT_CONNECT_MS: u64 = 10_000;
/// MQTT messages of QoS 1 and 2 that one client is sent before it acknowledges any: enough to fill a fast network.
pub const MQTT_IN_FLIGHT_MAX: u16 = 1024;
/// MQTT 5.0 messages of QoS 1 and 2 that a client may send before they are acknowledged, unless set otherwise: what Mosquitto announces.
pub const MQTT_RECEIVE_MAXIMUM: u16 = 20;
/// Topic aliases of an MQTT 5.0 client in each direction, unless set otherwise: what Mosquitto announces.
pub const MQTT_TOPIC_ALIASES: u16 = 10;
/// PUBLISH packets of one MQTT connection whose publishing is not done; earlier versions have no receive maximum.
pub const MQTT_UNDONE_MAX: usize = 4096;
/// Bytes written ahead for an MQTT client that does not read, before its socket is left unread and messages wait unencoded.
pub const MQTT_UNSENT_BYTES_MAX: usize = 1 << 20;
/// Subscriptions of one MQTT client.
pub const MQTT_SUBSCRIPTIONS_MAX: usize = 100_000;
/// Bytes of each leg that a persistent MQTT session reads ahead: one read of memory, without holding much.
pub const MQTT_LEG_READ_BYTES: u32 = 64 << 10;
/// Retained messages that one round of an MQTT subscription reads.
pub const MQTT_RETAINED_ROUND: usize = 64;
/// Last values of streams that one look for a subscription visits: it holds off who finds new ones.
pub const LAST_VALUES_LOOK: usize = 8_192;
/// Last values that a node offers, over all streams: about 150 bytes of memory each, and the text of the subject.
pub const LAST_VALUES_MAX: usize = 2_000_000;
/// Bytes of a partition that are read at once to find its last values.
pub const LAST_VALUES_READ_BYTES: u32 = 1 << 20;
/// Queue cursors of a node: their state lies in memory.
pub const CURSORS_MAX: usize = 1_000_000;
/// Bytes of a cursor's name: the longest client id of MQTT behind a protocol's prefix.
pub const CURSOR_NAME_BYTES_MAX: usize = (64 << 10) + 64;
/// Legs of one cursor: more subscriptions than a session can have read one by one.
pub const CURSOR_LEGS_MAX: usize = 10_000;
/// Notes of one cursor: one for each packet identifier of MQTT in both directions.
pub const CURSOR_NOTES_MAX: usize = 128 << 10;
/// Bytes of one note of a cursor or leg: what is larger belongs into a stream.
pub const CURSOR_NOTE_BYTES_MAX: usize = 64 << 10;
/// Bytes of a note that is taken also when the disk is full, from what is kept back for such things.
pub const CURSOR_NOTE_SMALL_BYTES: usize = 1 << 10;
/// Bytes of all notes of one cursor: they lie in memory.
pub const CURSOR_NOTES_BYTES_MAX: usize = 1 << 20;
/// Bytes of what a list of cursors gives in one go, about: the shard must not be kept from publishers.
pub const CURSOR_LIST_BYTES: usize = 1 << 20;
/// Marks of one leg: as many as there are packet identifiers in MQTT.
pub const CURSOR_MARKS_MAX: usize = 65_535;
/// Runs that one leg has settled out of order. What is settled is written as a whole, so this bounds what one settlement costs.
pub const CURSOR_RUNS_MAX: usize = 4096;
/// Cursor ids reserved by one durable entry.
pub const CURSOR_ID_BLOCK: u64 = 1000;
/// Unsettled records of one queue cursor, unless set otherwise: hours of a busy sensor, for a client that does not come back.
pub const QUEUE_RECORDS_MAX: u64 = 1_000_000;
/// Their bytes, unless set otherwise: one client that does not come back must not fill a disk.
pub const QUEUE_BYTES_MAX: u64 = 1 << 30;
/// Queue cursors that the shard looks at in one go, whether they are over their limits: publishers wait as long.
pub const QUEUES_LOOK: usize = 10_000;
/// What it does for them in one go: legs and their settled runs looked at, and pieces dropped.
pub const QUEUES_WORK: usize = 50_000;
/// Batches of one queue cursor that are dropped in one go, for the same reason.
pub const QUEUE_DROPS_AT_ONCE: usize = 20_000;
/// Bytes of messages that one connection published under one subject and that become one batch: a reader gets all of a batch.
pub const JOINED_BYTES_MAX: usize = 64 << 10;
/// Messages of groups that wait for one member of MQTT's shared subscriptions: what its connection sends in one go.
pub const MQTT_SHARED_AHEAD: usize = 64;
/// Largest MQTT packet, unless set otherwise: what Mosquitto announces, and above the largest batch of a stream.
pub const MQTT_PACKET_BYTES: u32 = 2_000_000;
