//! The settings of groups.
//!
//! Kept through the door under an owner for each group, in the words below. Settings of share and streams groups, which are not
//! served, are kept and shown like the others. Source: Apache Kafka 4.1, `GroupConfig` and the bounds of `GroupCoordinatorConfig`.

use std::collections::BTreeMap;

use crate::setting::{Kind, Rule, Setting};

/// Owner of the names of groups that have settings; the values are empty.
pub const GROUPS_OWNER: &str = "kafka/groups";

/// Bounds of a heartbeat interval, in milliseconds.
const HEARTBEAT_MS: (i64, i64) = (5_000, 15_000);
/// Bounds of a session timeout, in milliseconds.
const SESSION_MS: (i64, i64) = (45_000, 60_000);

const HEARTBEAT: Rule = Rule::Between(HEARTBEAT_MS.0, HEARTBEAT_MS.1);
const SESSION: Rule = Rule::Between(SESSION_MS.0, SESSION_MS.1);
const ISOLATION: Rule = Rule::Among(&["read_committed", "read_uncommitted"]);

const fn setting(name: &'static str, kind: Kind, default: &'static str, rule: Rule, meaning: &'static str) -> Setting {
    Setting { name, kind, default, rule, node_names: &[], meaning }
}

/// By name.
#[rustfmt::skip]
pub const GROUP_SETTINGS: &[Setting] = &[
    setting("consumer.heartbeat.interval.ms", Kind::Int, "5000", HEARTBEAT,
        "Time between two heartbeats that members of a consumer group are asked for."),
    setting("consumer.session.timeout.ms", Kind::Int, "45000", SESSION,
        "Silence after which a member of a consumer group is taken for gone."),
    setting("share.auto.offset.reset", Kind::Text, "latest", Rule::OffsetReset,
        "Where a share group begins. Without effect: share groups are not served."),
    setting("share.heartbeat.interval.ms", Kind::Int, "5000", HEARTBEAT,
        "Time between two heartbeats of a share group. Without effect: share groups are not served."),
    setting("share.isolation.level", Kind::Text, "read_uncommitted", ISOLATION,
        "Whether a share group sees open transactions. Without effect: share groups are not served."),
    setting("share.record.lock.duration.ms", Kind::Int, "30000", Rule::Between(15_000, 60_000),
        "How long a share group's member holds a record. Without effect: share groups are not served."),
    setting("share.session.timeout.ms", Kind::Int, "45000", SESSION,
        "Silence after which a member of a share group is taken for gone. Without effect: share groups are not served."),
    setting("streams.heartbeat.interval.ms", Kind::Int, "5000", HEARTBEAT,
        "Time between two heartbeats of a streams group. Without effect: streams groups are not served."),
    setting("streams.num.standby.replicas", Kind::Int, "0", Rule::Between(0, 2),
        "Standby copies of a streams group's tasks. Without effect: streams groups are not served."),
    setting("streams.session.timeout.ms", Kind::Int, "45000", SESSION,
        "Silence after which a member of a streams group is taken for gone. Without effect: streams groups are not served."),
];

/// Under which name the door keeps the settings of `group`.
pub fn owner(group: &str) -> String {
    format!("kafka/group/{group}")
}

/// The group setting called `name`.
pub fn find(name: &str) -> Option<&'static Setting> {
    GROUP_SETTINGS.binary_search_by_key(&name, |setting| setting.name).ok().map(|place| &GROUP_SETTINGS[place])
}

/// Checks what is set for a group; gives it back as it is stored. An error is for a person. A session timeout is always longer
/// than a heartbeat interval, as their bounds do not overlap.
pub fn check(settings: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>, String> {
    let mut checked = BTreeMap::new();
    for (name, text) in settings {
        let setting = find(name).ok_or_else(|| format!("groups have no setting {name}"))?;
        checked.insert(name.clone(), setting.parse(text)?);
    }
    Ok(checked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order_and_its_defaults_are_values() {
        assert!(GROUP_SETTINGS.is_sorted_by_key(|setting| setting.name));
        const { assert!(HEARTBEAT_MS.1 < SESSION_MS.0) };
        for setting in GROUP_SETTINGS {
            assert_eq!(setting.parse(setting.default).as_deref(), Ok(setting.default));
        }
    }

    #[test]
    fn values_out_of_bounds_are_told() {
        let set = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
        assert!(check(&set("consumer.session.timeout.ms", "50000")).is_ok());
        assert!(check(&set("consumer.session.timeout.ms", "44999")).is_err());
        assert!(check(&set("retention.ms", "1")).is_err());
    }
}
