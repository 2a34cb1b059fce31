//! Speaks Kafka to clients.
