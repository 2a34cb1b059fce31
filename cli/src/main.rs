//! The `firth` program.

fn main() {}
