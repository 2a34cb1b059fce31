//! How messages become bytes and bytes become messages.

pub mod form;
pub mod message;
pub mod reader;
pub mod text;
pub mod wire;
pub mod writer;

#[cfg(test)]
pub mod dice;
#[cfg(test)]
mod tests;
