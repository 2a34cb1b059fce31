//! Which of its many shapes a message takes.

use std::ops::RangeBounds;

/// The version of a message, and whether that version is a flexible one: compact lengths and tagged fields (KIP-482).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    pub version: i16,
    pub flexible: bool,
}

impl Form {
    /// A version without compact lengths and tagged fields.
    pub const fn plain(version: i16) -> Form {
        Form { version, flexible: false }
    }

    /// Whether a field that exists in `versions` is part of this form.
    pub fn has(self, versions: impl RangeBounds<i16>) -> bool {
        versions.contains(&self.version)
    }
}
