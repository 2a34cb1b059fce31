//! Moments and spans, in milliseconds; the clock itself is handed in.

use std::sync::Arc;

/// Milliseconds since 1970-01-01T00:00:00Z. Negative values are times before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub i64);

impl Millis {
    /// The moment `span_ms` later; stops at the ends of time instead of wrapping.
    pub fn plus(self, span_ms: i64) -> Millis {
        Millis(self.0.saturating_add(span_ms))
    }

    /// Milliseconds from `earlier` to this moment, never negative.
    pub fn since(self, earlier: Millis) -> i64 {
        self.0.saturating_sub(earlier.0).max(0)
    }
}

/// Reads the time. Whoever builds a node hands one in: the system's clock in a server, a simulated one in `sim`.
pub type Clock = Arc<dyn Fn() -> Millis + Send + Sync>;
