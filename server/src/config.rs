//! The configuration: where each value came from, and what it is.
//!
//! Precedence: flag, then environment, then file, then default.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};

use firth_broker::cursors::limits::{Drops, QueueLimits};
use firth_gateway::message::Overflow;
use firth_mqtt::node::MqttSettings;

use crate::settings::{Kind, SETTINGS, Setting, find, nearest};

/// Values as text, by name; only what was set.
#[derive(Clone, Debug, Default)]
pub struct Values(BTreeMap<&'static str, String>);

impl Values {
    /// Sets a value; what is there already stays, because sources come in the order of their precedence.
    fn offer(&mut self, name: &str, value: &str, origin: &str) -> Result<()> {
        let Some(setting) = find(name) else {
            return Err(unknown(name, origin));
        };
        check(setting, value).with_context(|| format!("{origin}: {name} = {value:?}"))?;
        self.0.entry(setting.name).or_insert_with(|| value.to_owned());
        Ok(())
    }

    /// From flags: `name=value`.
    pub fn flags<'a>(&mut self, flags: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<()> {
        for (name, value) in flags {
            self.offer(name, value, "flag")?;
        }
        Ok(())
    }

    /// From the environment: `FIRTH_KAFKA__PORT` is `kafka.port`. A name without `__` that is no setting is somebody else's.
    pub fn environment(&mut self, variables: impl IntoIterator<Item = (String, String)>) -> Result<()> {
        for (variable, value) in variables {
            let Some(rest) = variable.strip_prefix("FIRTH_") else { continue };
            let name = rest.to_ascii_lowercase().replace("__", ".");
            if find(&name).is_none() && !rest.contains("__") {
                tracing::warn!(variable, "no such setting: ignored");
                continue;
            }
            self.offer(&name, &value, &variable)?;
        }
        Ok(())
    }

    pub fn file(&mut self, path: &Path) -> Result<()> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let table: toml::Table = text.parse().with_context(|| format!("{} is not TOML", path.display()))?;
        let mut flat = Vec::new();
        flatten("", &table, &mut flat)?;
        for (name, value) in flat {
            let line = line_of(&text, &name);
            self.offer(&name, &value, &format!("{}:{line}", path.display()))?;
        }
        Ok(())
    }

    fn text(&self, name: &str) -> &str {
        match self.0.get(name) {
            Some(value) => value,
            None => find(name).map_or("", |setting| setting.default),
        }
    }

    fn number<T: TryFrom<i64>>(&self, name: &str) -> Result<Option<T>> {
        let text = self.text(name);
        if text.is_empty() {
            return Ok(None);
        }
        let value: i64 = text.parse().with_context(|| name.to_owned())?;
        T::try_from(value).map(Some).map_err(|_| anyhow!("{name} = {value} is out of range"))
    }

    fn required<T: TryFrom<i64>>(&self, name: &str) -> Result<T> {
        self.number(name)?.ok_or_else(|| anyhow!("{name} has no value"))
    }
}

fn unknown(name: &str, origin: &str) -> anyhow::Error {
    let hint = nearest(name).map_or(String::new(), |near| format!("; did you mean {near:?}?"));
    anyhow!("{origin}: no setting is called {name:?}{hint}")
}

/// Whether a text is a value of the setting.
pub fn check(setting: &Setting, value: &str) -> Result<()> {
    match setting.kind {
        Kind::Text => Ok(()),
        Kind::Switch if matches!(value, "true" | "false") => Ok(()),
        Kind::Switch => bail!("must be true or false"),
        Kind::OneOf(words) if words.contains(&value) => Ok(()),
        Kind::OneOf(words) => bail!("must be one of {}", words.join(", ")),
        Kind::Number { min, max } => match value.parse::<i64>() {
            Ok(number) if (min..=max).contains(&number) => Ok(()),
            _ => bail!("must be a number from {min} to {max}"),
        },
    }
}

fn flatten(prefix: &str, table: &toml::Table, out: &mut Vec<(String, String)>) -> Result<()> {
    for (key, value) in table {
        let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match value {
            toml::Value::Table(inner) => flatten(&name, inner, out)?,
            toml::Value::String(text) => out.push((name, text.clone())),
            toml::Value::Integer(number) => out.push((name, number.to_string())),
            toml::Value::Boolean(switch) => out.push((name, switch.to_string())),
            _ => bail!("{name}: a text, a number or a switch is expected"),
        }
    }
    Ok(())
}

/// The line on which the last part of a name first stands, for messages.
fn line_of(text: &str, name: &str) -> usize {
    let key = name.rsplit('.').next().unwrap_or(name);
    text.lines().position(|line| line.trim_start().starts_with(key)).map_or(1, |at| at + 1)
}

/// What a node is started with.
#[derive(Clone, Debug)]
pub struct Config {
    pub data: PathBuf,
    pub ready_file: Option<PathBuf>,
    pub log: String,
    pub node_id: i32,
    pub listeners: Vec<Listener>,
    pub advertise: Option<(String, u16)>,
    pub auto_create: bool,
    pub partitions: u32,
    pub extent_bytes: Option<u32>,
    pub archive_url: String,
    pub archive_endpoint: String,
    pub archive_region: String,
    pub journal_bytes_max: u64,
    pub archive_after_ms: i64,
    pub segment_bytes: usize,
    pub tail_bytes: Option<u64>,
    pub block_bytes: Option<u64>,
    pub memory_bytes: Option<u64>,
    pub rebalance_delay_ms: i64,
    pub session_ms_min: i64,
    pub session_ms_max: i64,
    pub mqtt: MqttSettings,
    pub queues: QueueLimits,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// One of those in `LISTENERS`.
    pub protocol: &'static str,
    pub address: SocketAddr,
}

/// Everything a node can listen to: the protocol, and the settings of its address and port.
const LISTENERS: [(&str, &str, &str); 3] =
    [("kafka", "kafka.address", "kafka.port"), ("mqtt", "mqtt.address", "mqtt.port"), ("mqtt-ws", "mqtt.address", "mqtt.ws_port")];

impl Config {
    /// `listen` are the `--listen` flags (`PROTOCOL=ADDR:PORT`); when given, only these listeners start.
    pub fn from_values(values: &Values, listen: &[String]) -> Result<Config> {
        let optional_path = |name| Some(values.text(name)).filter(|text| !text.is_empty()).map(PathBuf::from);
        let mut listeners = Vec::new();
        for text in listen {
            listeners.push(parse_listener(text)?);
        }
        if listeners.is_empty() {
            for (protocol, address, port) in LISTENERS {
                let ip: IpAddr = values.text(address).parse().with_context(|| format!("{address} must be an IP address"))?;
                listeners.push(Listener { protocol, address: (ip, values.required(port)?).into() });
            }
        }
        if values.text("allow_insecure") != "true" {
            refuse_open_doors(&listeners)?;
        }
        Ok(Config {
            data: PathBuf::from(values.text("data")),
            ready_file: optional_path("ready_file"),
            log: values.text("log").to_owned(),
            node_id: values.required("node.id")?,
            listeners,
            advertise: parse_advertise(values.text("kafka.advertise"))?,
            auto_create: values.text("kafka.auto_create") == "true",
            partitions: values.required("kafka.partitions")?,
            extent_bytes: values.number("journal.extent_bytes")?,
            archive_url: values.text("archive.url").to_owned(),
            archive_endpoint: values.text("archive.endpoint").to_owned(),
            archive_region: values.text("archive.region").to_owned(),
            journal_bytes_max: values.required("journal.bytes_max")?,
            archive_after_ms: values.required("archive.after_ms")?,
            segment_bytes: values.required("archive.segment_bytes")?,
            tail_bytes: values.number("cache.tail_bytes")?,
            block_bytes: values.number("cache.block_bytes")?,
            memory_bytes: values.number("memory.bytes_max")?,
            rebalance_delay_ms: values.required("groups.rebalance_delay_ms")?,
            session_ms_min: values.required("groups.session_ms_min")?,
            session_ms_max: values.required("groups.session_ms_max")?,
            mqtt: MqttSettings {
                receive_maximum: values.required("mqtt.receive_maximum")?,
                in_flight_max: values.required("mqtt.in_flight_max")?,
                topic_aliases: values.required("mqtt.topic_aliases")?,
                packet_bytes_max: values.number("mqtt.packet_bytes_max")?,
                keep_alive_s_max: values.number("mqtt.keep_alive_s_max")?,
                session_expiry_s_max: values.number("mqtt.session_expiry_s_max")?,
                live_overflow: match values.text("mqtt.live_overflow") {
                    "drop_oldest" => Overflow::DropOldest,
                    "disconnect" => Overflow::Disconnect,
                    _ => Overflow::DropNewest,
                },
            },
            queues: QueueLimits {
                records: values.required("mqtt.queue_records_max")?,
                bytes: values.required("mqtt.queue_bytes_max")?,
                drops: if values.text("mqtt.queue_drops") == "newest" { Drops::Newest } else { Drops::Oldest },
                in_flight: values.required("mqtt.in_flight_max")?,
            },
        })
    }
}

fn parse_listener(text: &str) -> Result<Listener> {
    let (protocol, address) = text.split_once('=').ok_or_else(|| anyhow!("--listen {text}: PROTOCOL=ADDR:PORT is expected"))?;
    let Some((known, ..)) = LISTENERS.into_iter().find(|(known, ..)| *known == protocol) else {
        let known = LISTENERS.map(|(known, ..)| known).join(", ");
        bail!("--listen {text}: no protocol is called {protocol:?}; there are {known}");
    };
    let address = address.parse().with_context(|| format!("--listen {text}: ADDR:PORT is expected, ADDR an IP address"))?;
    Ok(Listener { protocol: known, address })
}

fn parse_advertise(text: &str) -> Result<Option<(String, u16)>> {
    if text.is_empty() {
        return Ok(None);
    }
    let wrong = || anyhow!("kafka.advertise {text:?}: HOST:PORT is expected");
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() {
        return Err(wrong());
    }
    Ok(Some((host.to_owned(), port.parse().map_err(|_| wrong())?)))
}

fn refuse_open_doors(listeners: &[Listener]) -> Result<()> {
    match listeners.iter().find(|listener| !listener.address.ip().is_loopback()) {
        None => Ok(()),
        Some(open) => bail!(
            "refusing to listen on {}: anybody who reaches it could read and write everything, because there is no sign-in yet. \
             Listen on 127.0.0.1, or add --allow-insecure on a network you trust.",
            open.address
        ),
    }
}

/// All settings with their values and defaults, for `firth settings`.
pub fn describe() -> String {
    let mut out = String::new();
    for setting in SETTINGS {
        let default = if setting.default.is_empty() { "-" } else { setting.default };
        out.push_str(&format!("{:<28}{:<14}{}\n", setting.name, default, setting.about));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(flags: &[(&str, &str)], environment: &[(&str, &str)]) -> Result<Values> {
        let mut values = Values::default();
        values.flags(flags.iter().copied())?;
        values.environment(environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))?;
        Ok(values)
    }

    #[test]
    fn flags_win_over_the_environment_and_it_over_defaults() {
        let values = values(&[("kafka.port", "1")], &[("FIRTH_KAFKA__PORT", "2"), ("FIRTH_NODE__ID", "9")]).expect("known names");
        let config = Config::from_values(&values, &[]).expect("a configuration");
        assert_eq!(config.listeners[0].address.port(), 1);
        assert_eq!(config.node_id, 9);
        assert_eq!(config.data, PathBuf::from("firth-data"));
    }

    #[test]
    fn unknown_names_are_errors_with_a_hint() {
        let error = values(&[("kafka.prot", "1")], &[]).expect_err("no such setting");
        assert!(error.to_string().contains("did you mean \"kafka.port\""), "{error}");
        assert!(values(&[], &[("FIRTH_KAFKA__PROT", "1")]).is_err());
        assert!(values(&[], &[("FIRTH_SOMETHING", "1")]).is_ok(), "not ours");
        assert!(values(&[("kafka.port", "70000")], &[]).is_err());
    }

    #[test]
    fn open_addresses_need_a_word() {
        let open = ["kafka=0.0.0.0:0".to_owned()];
        let refused = Config::from_values(&Values::default(), &open).expect_err("not loopback");
        assert!(refused.to_string().contains("--allow-insecure"));
        let allowed = values(&[("allow_insecure", "true")], &[]).expect("known name");
        assert!(Config::from_values(&allowed, &open).is_ok());
    }
}
