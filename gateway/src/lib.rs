//! The one door to the broker: what may be asked, what may come back.
