//! The settings of topics, and what the log makes of them.
//!
//! Every topic configuration of Apache Kafka 4.1 can be set, is checked, stored and shown, and those of our own, whose names begin
//! with `firth.`. Only those that say so change what this
//! server does: it has no segment files per topic, no replicas and no remote storage. Source of names, types, defaults and rules:
//! Apache Kafka 4.1, `LogConfig` and `ServerTopicConfigSynonyms`.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use firth_gateway::streams::{Policy, TimeSource};
use firth_model::filter::{Filter, Reserved};
use firth_model::time::Millis;

use crate::setting::{Kind, Rule, Setting, at_least, elements};

/// Largest batch that a topic may allow: a batch is one piece of a commit, and is held in memory whole.
pub const BATCH_BYTES_MAX: u32 = 30 << 20;

const CLEANUP_POLICY: &str = "cleanup.policy";
const DELETE_RETENTION_MS: &str = "delete.retention.ms";
const FIRTH_CAPTURES: &str = "firth.captures";
const FIRTH_RETAIN: &str = "firth.retain";
const FIRTH_RETENTION_RECORDS: &str = "firth.retention.records";
const MAX_COMPACTION_LAG_MS: &str = "max.compaction.lag.ms";
const MAX_MESSAGE_BYTES: &str = "max.message.bytes";
const TIMESTAMP_AFTER_MAX_MS: &str = "message.timestamp.after.max.ms";
const TIMESTAMP_BEFORE_MAX_MS: &str = "message.timestamp.before.max.ms";
const TIMESTAMP_TYPE: &str = "message.timestamp.type";
const MIN_COMPACTION_LAG_MS: &str = "min.compaction.lag.ms";
const MIN_CLEANABLE_DIRTY_RATIO: &str = "min.cleanable.dirty.ratio";
const REMOTE_STORAGE_ENABLE: &str = "remote.storage.enable";
const RETENTION_BYTES: &str = "retention.bytes";
const RETENTION_MS: &str = "retention.ms";

/// One line of the table: name, kind, default, rule, names on brokers, meaning.
const fn setting(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    rule: Rule,
    node_names: &'static [&'static str],
    meaning: &'static str,
) -> Setting {
    Setting { name, kind, default, rule, node_names, meaning }
}

const INT_MAX: i64 = 0x7fff_ffff;
const LONG_MAX: &str = "9223372036854775807";
const CODECS: &[&str] = &["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"];

/// By name.
#[rustfmt::skip]
pub const TOPIC_SETTINGS: &[Setting] = &[
    setting(CLEANUP_POLICY, Kind::List, "delete", Rule::Among(&["compact", "delete"]), &["log.cleanup.policy"],
        "What removes records: delete by age and size, compact all but the last record of each key, or both."),
    setting("compression.gzip.level", Kind::Int, "-1", Rule::BetweenOrMinusOne(1, 9), &["compression.gzip.level"],
        "Effort of gzip. Without effect: batches stay as their producers made them."),
    setting("compression.lz4.level", Kind::Int, "9", Rule::Between(1, 17), &["compression.lz4.level"],
        "Effort of lz4. Without effect: batches stay as their producers made them."),
    setting("compression.type", Kind::Text, "producer", Rule::Among(CODECS), &["compression.type"],
        "Codec of stored batches. Without effect: batches stay as their producers made them."),
    setting("compression.zstd.level", Kind::Int, "3", Rule::Between(-131_072, 22), &["compression.zstd.level"],
        "Effort of zstd. Without effect: batches stay as their producers made them."),
    setting(DELETE_RETENTION_MS, Kind::Long, "86400000", at_least(0), &["log.cleaner.delete.retention.ms"],
        "How long a compacted topic keeps the record that says a key is deleted."),
    setting("file.delete.delay.ms", Kind::Long, "60000", at_least(0), &["log.segment.delete.delay.ms"],
        "Wait before a removed file is deleted. Without effect: topics have no files of their own."),
    setting(FIRTH_CAPTURES, Kind::List, "", Rule::Filters, &[],
        "Filters over subjects whose records the topic stores, beside its own subject. Firth's own: Apache Kafka has no such setting."),
    setting(FIRTH_RETAIN, Kind::Text, "none", Rule::Among(&["last", "none"]), &[],
        "Whether MQTT subscribers are offered the last record of each subject. Firth's own: Apache Kafka has no such setting."),
    setting(FIRTH_RETENTION_RECORDS, Kind::Long, "-1", at_least(-1), &[],
        "Records at which a partition loses its oldest ones; -1 sets no limit. Firth's own: Apache Kafka has no such setting."),
    setting("flush.messages", Kind::Long, LONG_MAX, at_least(1), &["log.flush.interval.messages"],
        "Records between two syncs. Without effect: everything is synced before it is acknowledged."),
    setting("flush.ms", Kind::Long, LONG_MAX, at_least(0), &["log.flush.interval.ms", "log.flush.scheduler.interval.ms"],
        "Time between two syncs. Without effect: everything is synced before it is acknowledged."),
    setting("follower.replication.throttled.replicas", Kind::List, "", Rule::ReplicaPairs, &[],
        "Followers whose replication is slowed. Without effect: a partition has one replica."),
    setting("index.interval.bytes", Kind::Int, "4096", Rule::Between(0, INT_MAX), &["log.index.interval.bytes"],
        "Bytes between two index entries. Without effect: every batch is indexed."),
    setting("leader.replication.throttled.replicas", Kind::List, "", Rule::ReplicaPairs, &[],
        "Leaders whose replication is slowed. Without effect: a partition has one replica."),
    setting("local.retention.bytes", Kind::Long, "-2", at_least(-2), &["log.local.retention.bytes"],
        "Bytes kept on this disk beside remote storage. Without effect: there is no remote storage."),
    setting("local.retention.ms", Kind::Long, "-2", at_least(-2), &["log.local.retention.ms"],
        "Time kept on this disk beside remote storage. Without effect: there is no remote storage."),
    setting(MAX_COMPACTION_LAG_MS, Kind::Long, LONG_MAX, at_least(1), &["log.cleaner.max.compaction.lag.ms"],
        "Age at which a record of a compacted topic is compacted at the latest."),
    setting(MAX_MESSAGE_BYTES, Kind::Int, "1048588", Rule::Between(0, INT_MAX), &["message.max.bytes"],
        "Largest record batch that is taken, as sent. More than 31457280 counts as that."),
    setting(TIMESTAMP_AFTER_MAX_MS, Kind::Long, "3600000", at_least(0), &["log.message.timestamp.after.max.ms"],
        "How far in the future a record's time may lie, where producers give the time."),
    setting(TIMESTAMP_BEFORE_MAX_MS, Kind::Long, LONG_MAX, at_least(0), &["log.message.timestamp.before.max.ms"],
        "How far in the past a record's time may lie, where producers give the time."),
    setting(TIMESTAMP_TYPE, Kind::Text, "CreateTime", Rule::Among(&["CreateTime", "LogAppendTime"]), &["log.message.timestamp.type"],
        "Who gives records their time: producers, or the log when it takes them."),
    setting(MIN_CLEANABLE_DIRTY_RATIO, Kind::Double, "0.5", Rule::Fraction, &["log.cleaner.min.cleanable.ratio"],
        "Share of not yet compacted bytes at which a topic is compacted."),
    setting(MIN_COMPACTION_LAG_MS, Kind::Long, "0", at_least(0), &["log.cleaner.min.compaction.lag.ms"],
        "Age below which a record of a compacted topic is not compacted."),
    setting("min.insync.replicas", Kind::Int, "1", Rule::Between(1, INT_MAX), &["min.insync.replicas"],
        "Replicas that must have a record before acks=all is answered. Without effect: a partition has one replica."),
    setting("preallocate", Kind::Boolean, "false", Rule::Any, &["log.preallocate"],
        "Whether files get their space ahead. Without effect: the journal always does that."),
    setting("remote.log.copy.disable", Kind::Boolean, "false", Rule::Any, &[],
        "Stops copying to remote storage. Without effect: there is no remote storage."),
    setting("remote.log.delete.on.disable", Kind::Boolean, "false", Rule::Any, &[],
        "Deletes from remote storage when it is turned off. Without effect: there is no remote storage."),
    setting(REMOTE_STORAGE_ENABLE, Kind::Boolean, "false", Rule::Any, &[],
        "Remote storage for the topic; this server has none and takes only false."),
    setting(RETENTION_BYTES, Kind::Long, "-1", Rule::Any, &["log.retention.bytes"],
        "Size at which a partition loses its oldest records; -1 sets no limit."),
    setting(RETENTION_MS, Kind::Long, "604800000", at_least(-1), &["log.retention.ms", "log.retention.minutes", "log.retention.hours"],
        "Age at which records are removed; -1 keeps them for ever."),
    setting("segment.bytes", Kind::Int, "1073741824", Rule::Between(1 << 20, INT_MAX), &["log.segment.bytes"],
        "Size of a segment file. Without effect: topics have no files of their own."),
    setting("segment.index.bytes", Kind::Int, "10485760", Rule::Between(4, INT_MAX), &["log.index.size.max.bytes"],
        "Size of an index file. Without effect: topics have no files of their own."),
    setting("segment.jitter.ms", Kind::Long, "0", at_least(0), &["log.roll.jitter.ms", "log.roll.jitter.hours"],
        "Spread of the times when segment files are ended. Without effect: topics have no files of their own."),
    setting("segment.ms", Kind::Long, "604800000", at_least(1), &["log.roll.ms", "log.roll.hours"],
        "Age at which a segment file is ended. Without effect: topics have no files of their own."),
    setting("unclean.leader.election.enable", Kind::Boolean, "false", Rule::Any, &["unclean.leader.election.enable"],
        "Whether a replica that lags may lead. Without effect: a partition has one replica."),
];

/// The topic setting called `name`.
pub fn find(name: &str) -> Option<&'static Setting> {
    TOPIC_SETTINGS.binary_search_by_key(&name, |setting| setting.name).ok().map(|place| &TOPIC_SETTINGS[place])
}

/// Checks what is set for a topic, one by one and against each other; gives it back as it is stored. An error is for a person.
pub fn check(settings: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>, String> {
    let mut checked = BTreeMap::new();
    for (name, text) in settings {
        let setting = find(name).ok_or_else(|| format!("topics have no setting {name}"))?;
        checked.insert(name.clone(), setting.parse(text)?);
    }
    if number(&checked, MIN_COMPACTION_LAG_MS, 0) > number(&checked, MAX_COMPACTION_LAG_MS, i64::MAX) {
        return Err(format!("{MIN_COMPACTION_LAG_MS} is larger than {MAX_COMPACTION_LAG_MS}"));
    }
    if checked.get(REMOTE_STORAGE_ENABLE).is_some_and(|value| value == "true") {
        return Err(format!("{REMOTE_STORAGE_ENABLE} cannot be true: there is no remote storage"));
    }
    Ok(checked)
}

/// What the log does with a topic that has these settings, which were checked.
pub fn policy(settings: &BTreeMap<String, String>) -> Policy {
    let default = Policy::default();
    let limit = |name: &str, default: Option<u64>| match settings.get(name) {
        // Negative: no limit.
        Some(value) => value.parse::<u64>().ok(),
        None => default,
    };
    let cleanup = settings.get(CLEANUP_POLICY);
    let cleans = |word: &str, default: bool| cleanup.map_or(default, |value| elements(value).any(|element| element == word));
    let span = |name: &str, default: u64| limit(name, Some(default)).unwrap_or(default);
    let bytes_max = settings.get(MAX_MESSAGE_BYTES).and_then(|value| value.parse::<u32>().ok());
    Policy {
        retention_ms: limit(RETENTION_MS, default.retention_ms),
        retention_bytes: limit(RETENTION_BYTES, default.retention_bytes),
        expires: cleans("delete", default.expires),
        compacted: cleans("compact", default.compacted),
        batch_bytes_max: bytes_max.unwrap_or(default.batch_bytes_max).min(BATCH_BYTES_MAX),
        time: match settings.get(TIMESTAMP_TYPE).map(String::as_str) {
            Some("LogAppendTime") => TimeSource::Log,
            _ => TimeSource::Publisher,
        },
        retention_records: limit(FIRTH_RETENTION_RECORDS, default.retention_records),
        delete_retention_ms: span(DELETE_RETENTION_MS, default.delete_retention_ms),
        compaction_lag_min_ms: span(MIN_COMPACTION_LAG_MS, default.compaction_lag_min_ms),
        // The largest number is how Kafka writes "never".
        compaction_lag_max_ms: limit(MAX_COMPACTION_LAG_MS, default.compaction_lag_max_ms).filter(|&lag| lag < i64::MAX as u64),
        dirty_ratio_percent: settings.get(MIN_CLEANABLE_DIRTY_RATIO).map_or(default.dirty_ratio_percent, |value| percent(value)),
        captures: settings.get(FIRTH_CAPTURES).map(|value| captures(value)).unwrap_or_default(),
        offers_last: settings.get(FIRTH_RETAIN).is_some_and(|value| value == "last"),
        hidden: false,
    }
}

/// The filters of a checked list. One that begins with a wildcard does not capture what protocols keep for themselves.
fn captures(value: &str) -> Vec<Filter> {
    elements(value).filter_map(|text| Filter::parse(text).ok()).map(|filter| filter.with_reserved(Reserved::Hidden)).collect()
}

/// A fraction from 0 to 1, in hundredths; more than 1 counts as that.
fn percent(fraction: &str) -> u8 {
    let fraction: f64 = fraction.parse().unwrap_or(0.0);
    (fraction * 100.0).round().clamp(0.0, 100.0) as u8
}

/// The times that records of a topic may have at `now`, where producers give them, in milliseconds since 1970. `None` if any.
pub fn times_allowed(settings: &BTreeMap<String, String>, now: Millis) -> Option<RangeInclusive<i64>> {
    let before = number(settings, TIMESTAMP_BEFORE_MAX_MS, i64::MAX);
    let after = number(settings, TIMESTAMP_AFTER_MAX_MS, 3_600_000);
    if before == i64::MAX && after == i64::MAX {
        return None;
    }
    let earliest = if before == i64::MAX { i64::MIN } else { now.0.saturating_sub(before) };
    Some(earliest..=now.0.saturating_add(after))
}

fn number(settings: &BTreeMap<String, String>, name: &str, default: i64) -> i64 {
    settings.get(name).and_then(|value| value.parse().ok()).unwrap_or(default)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_table_is_in_order_and_its_defaults_are_values() {
        assert_eq!(TOPIC_SETTINGS.len(), 36);
        assert!(TOPIC_SETTINGS.is_sorted_by_key(|setting| setting.name));
        for setting in TOPIC_SETTINGS {
            assert_eq!(setting.parse(setting.default).as_deref(), Ok(setting.default));
            assert!(find(setting.name).is_some());
        }
    }

    #[test]
    fn defaults_mean_what_the_log_does_by_default() {
        let all = TOPIC_SETTINGS.iter().map(|setting| (setting.name.to_owned(), setting.default.to_owned())).collect();
        assert_eq!(policy(&all), Policy::default());
        assert_eq!(policy(&BTreeMap::new()), Policy::default());
        assert_eq!(times_allowed(&all, Millis(5)), times_allowed(&BTreeMap::new(), Millis(5)));
    }

    #[test]
    fn settings_become_policy() {
        let settings = set(&[
            ("cleanup.policy", "compact"),
            ("retention.ms", "-1"),
            ("retention.bytes", "7"),
            ("max.message.bytes", "2000000000"),
            ("message.timestamp.type", "LogAppendTime"),
            ("firth.retention.records", "1000"),
            ("delete.retention.ms", "5"),
            ("min.compaction.lag.ms", "6"),
            ("max.compaction.lag.ms", "7"),
            ("min.cleanable.dirty.ratio", "0.29"),
            ("firth.captures", "a/*/c,b/>"),
            ("firth.retain", "last"),
        ]);
        let expected = Policy {
            retention_ms: None,
            retention_bytes: Some(7),
            expires: false,
            compacted: true,
            batch_bytes_max: BATCH_BYTES_MAX,
            time: TimeSource::Log,
            retention_records: Some(1000),
            delete_retention_ms: 5,
            compaction_lag_min_ms: 6,
            compaction_lag_max_ms: Some(7),
            dirty_ratio_percent: 29,
            captures: ["a/*/c", "b/>"].map(|text| Filter::parse(text).expect("a filter").with_reserved(Reserved::Hidden)).to_vec(),
            offers_last: true,
            hidden: false,
        };
        assert_eq!(policy(&check(&settings).expect("good")), expected);
    }

    #[test]
    fn bad_settings_are_told() {
        for bad in [
            set(&[("no.such", "1")]),
            set(&[("retention.ms", "-2")]),
            set(&[("cleanup.policy", "forget")]),
            set(&[("firth.retention.records", "-2")]),
            set(&[("firth.captures", "a/>/b")]),
            set(&[("remote.storage.enable", "true")]),
            set(&[("min.compaction.lag.ms", "9"), ("max.compaction.lag.ms", "8")]),
        ] {
            assert!(check(&bad).is_err(), "{bad:?}");
        }
        assert_eq!(check(&set(&[("preallocate", " TRUE")])), Ok(set(&[("preallocate", "true")])));
    }

    #[test]
    fn times_are_bounded_where_asked() {
        let now = Millis(10_000_000);
        assert_eq!(times_allowed(&BTreeMap::new(), now), Some(i64::MIN..=13_600_000));
        let narrow = set(&[("message.timestamp.before.max.ms", "10"), ("message.timestamp.after.max.ms", "9223372036854775807")]);
        assert_eq!(times_allowed(&narrow, now), Some(9_999_990..=i64::MAX));
        assert_eq!(times_allowed(&set(&[("message.timestamp.after.max.ms", "9223372036854775807")]), now), None);
    }
}
