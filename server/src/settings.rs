//! Every setting: name, default, meaning. Declared once.
//!
//! The same names serve the file (`[kafka] port = 9092`), the environment (`FIRTH_KAFKA__PORT=9092`) and `--set kafka.port=9092`.

use firth_model::limits::SEGMENT_BYTES;

/// One setting.
pub struct Setting {
    /// Dotted name.
    pub name: &'static str,
    pub kind: Kind,
    /// As text; empty means "not set".
    pub default: &'static str,
    pub about: &'static str,
}

/// What a value must look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Text,
    Switch,
    OneOf(&'static [&'static str]),
    /// An integer in this range.
    Number {
        min: i64,
        max: i64,
    },
}

const fn number(min: i64, max: i64) -> Kind {
    Kind::Number { min, max }
}

/// All of them, in the order in which people look for them.
pub const SETTINGS: &[Setting] = &[
    Setting { name: "data", kind: Kind::Text, default: "firth-data", about: "Directory that holds everything." },
    Setting { name: "ready_file", kind: Kind::Text, default: "", about: "File written when all listeners accept: JSON." },
    Setting {
        name: "allow_insecure",
        kind: Kind::Switch,
        default: "false",
        about: "Listen on addresses beyond loopback although there is no sign-in yet.",
    },
    Setting { name: "log", kind: Kind::Text, default: "warn", about: "What is logged: error, warn, info, debug, or a filter by module." },
    Setting { name: "node.id", kind: number(0, i32::MAX as i64), default: "1", about: "Number of this node, as clients see it." },
    Setting { name: "kafka.address", kind: Kind::Text, default: "127.0.0.1", about: "Address the Kafka listener binds to." },
    Setting { name: "kafka.port", kind: number(0, 65_535), default: "9092", about: "Its port; 0 takes any free one." },
    Setting {
        name: "kafka.advertise",
        kind: Kind::Text,
        default: "",
        about: "HOST:PORT told to clients; by default the address each client connected to.",
    },
    Setting { name: "kafka.auto_create", kind: Kind::Switch, default: "true", about: "Make a topic when a client asks for its metadata." },
    Setting {
        name: "kafka.partitions",
        kind: number(1, 100_000),
        default: "1",
        about: "Partitions of a topic that is made without saying how many.",
    },
    Setting { name: "mqtt.address", kind: Kind::Text, default: "127.0.0.1", about: "Address the MQTT listeners bind to." },
    Setting { name: "mqtt.port", kind: number(0, 65_535), default: "1883", about: "Port of MQTT; 0 takes any free one." },
    Setting { name: "mqtt.ws_port", kind: number(0, 65_535), default: "8083", about: "Port of MQTT over WebSocket, path /mqtt." },
    Setting {
        name: "mqtt.receive_maximum",
        kind: number(1, 65_535),
        default: "20",
        about: "Messages of QoS 1 and 2 that an MQTT 5.0 client may send before they are acknowledged.",
    },
    Setting {
        name: "mqtt.in_flight_max",
        kind: number(1, 65_535),
        default: "1024",
        about: "Messages of QoS 1 and 2 that an MQTT client is sent before it acknowledges any.",
    },
    Setting {
        name: "mqtt.topic_aliases",
        kind: number(0, 65_535),
        default: "10",
        about: "Topic aliases of an MQTT 5.0 client, in each direction.",
    },
    Setting {
        name: "mqtt.packet_bytes_max",
        kind: number(20, 268_435_460),
        default: "",
        about: "Largest MQTT packet; by default 2,000,000 bytes for 5.0 clients, which are told, and 100 MiB before.",
    },
    Setting {
        name: "mqtt.keep_alive_s_max",
        kind: number(1, 65_535),
        default: "",
        about: "Longest keep-alive of an MQTT client; who asks for more gets this one.",
    },
    Setting {
        name: "mqtt.session_expiry_s_max",
        kind: number(1, u32::MAX as i64),
        default: "",
        about: "Longest time for which an MQTT session is kept without a connection; by default as long as its client asks.",
    },
    Setting {
        name: "mqtt.queue_records_max",
        kind: number(1, 1 << 40),
        default: "1000000",
        about: "Messages that an MQTT session holds for its client; beyond that some are dropped, and counted.",
    },
    Setting {
        name: "mqtt.queue_bytes_max",
        kind: number(1 << 10, 1 << 50),
        default: "1073741824",
        about: "Bytes of messages that an MQTT session holds for its client, about.",
    },
    Setting {
        name: "mqtt.queue_drops",
        kind: Kind::OneOf(&["oldest", "newest"]),
        default: "oldest",
        about: "The end of an MQTT session that is over its limits that loses messages.",
    },
    Setting {
        name: "mqtt.live_overflow",
        kind: Kind::OneOf(&["drop_newest", "drop_oldest", "disconnect"]),
        default: "drop_newest",
        about: "What becomes of messages that no session keeps, for an MQTT client that is 8 MiB of them behind.",
    },
    Setting {
        name: "journal.extent_bytes",
        kind: number(4 << 20, 64 << 20),
        default: "",
        about: "Size of a journal extent, fixed at first start; by default 64 MiB or a sixteenth of the volume.",
    },
    Setting {
        name: "archive.url",
        kind: Kind::Text,
        default: "",
        about: "Where segments go: s3://BUCKET/PREFIX; by default a directory beside the journal.",
    },
    Setting {
        name: "archive.endpoint",
        kind: Kind::Text,
        default: "",
        about: "URL of an S3-compatible server; by default Amazon's of the region. Without TLS only if it says http://.",
    },
    Setting { name: "archive.region", kind: Kind::Text, default: "us-east-1", about: "Region of the bucket." },
    Setting {
        name: "journal.bytes_max",
        kind: number(16 << 20, 1 << 50),
        default: "4294967296",
        about: "Finished journal beyond this is moved into segments.",
    },
    Setting {
        name: "archive.after_ms",
        kind: number(100, 1 << 40),
        default: "900000",
        about: "Journal whose newest record is older than this is moved into segments.",
    },
    Setting {
        name: "cache.block_bytes",
        kind: number(1 << 20, 1 << 40),
        default: "",
        about: "Blocks of segments kept in memory for consumers far behind; by default a share of the node's memory.",
    },
    Setting {
        name: "archive.segment_bytes",
        kind: number(1 << 20, SEGMENT_BYTES as i64),
        default: "33554432",
        about: "A segment is finished at this size; at most what the memory for blocks of segments allows.",
    },
    Setting {
        name: "cache.tail_bytes",
        kind: number(1 << 20, 1 << 40),
        default: "",
        about: "Recent records kept in memory for consumers at the end of the log; by default a sixteenth of the memory, at most 128 MiB.",
    },
    Setting {
        name: "memory.bytes_max",
        kind: number(128 << 20, 1 << 50),
        default: "",
        about: "Memory of which caches and queues get shares; by default the control group's limit or the machine's memory.",
    },
    Setting {
        name: "groups.rebalance_delay_ms",
        kind: number(0, 60_000),
        default: "0",
        about: "How long a new group waits for more members before its first round.",
    },
    Setting { name: "groups.session_ms_min", kind: number(1, 3_600_000), default: "6000", about: "Shortest session a member may ask for." },
    Setting {
        name: "groups.session_ms_max",
        kind: number(1, 86_400_000),
        default: "1800000",
        about: "Longest session a member may ask for.",
    },
];

pub fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

/// The setting whose name is nearest to a mistyped one, if any is near.
pub fn nearest(name: &str) -> Option<&'static str> {
    let (distance, nearest) = SETTINGS.iter().map(|setting| (distance(name, setting.name), setting.name)).min()?;
    (distance <= name.len().max(4) / 2).then_some(nearest)
}

/// Levenshtein's distance, row by row.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (at, from) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = at + 1;
        for (column, to) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_errors_find_their_setting() {
        assert_eq!(nearest("kafka.prot"), Some("kafka.port"));
        assert_eq!(nearest("kafka.advertised"), Some("kafka.advertise"));
        assert_eq!(nearest("zzzzzzzzzzzz"), None);
    }

    #[test]
    fn defaults_are_values() {
        for setting in SETTINGS {
            assert!(crate::config::check(setting, setting.default).is_ok() || setting.default.is_empty(), "{}", setting.name);
        }
    }
}
