//! What a node may be told about its Kafka side.

/// What a node may be told about its Kafka side.
#[derive(Clone, Debug)]
pub struct KafkaSettings {
    /// Host and port that clients are told to connect to; `None` tells them the address they came to.
    pub advertise: Option<(String, u16)>,
    /// Whether a topic that is asked for and not there is made, if its asker allows it.
    pub auto_create: bool,
    /// Partitions of a topic whose maker gives no number.
    pub partitions: u32,
}

impl Default for KafkaSettings {
    fn default() -> KafkaSettings {
        KafkaSettings { advertise: None, auto_create: true, partitions: 1 }
    }
}
