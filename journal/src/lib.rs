//! Keeps one ordered, durable, fenced sequence of groups in local files.
