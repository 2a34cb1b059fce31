//! Builds one node from one configuration: opens, wires, listens, stops.

pub mod archive;
pub mod backup;
pub mod config;
pub mod identity;
pub mod listen;
pub mod memory;
mod pace;
mod rehearsal;
pub mod repair;
pub mod run;
pub mod settings;
pub mod verify;
