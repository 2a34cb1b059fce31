//! What a session keeps in the notes of its cursor.

use firth_gateway::cursors::HOLDS;

/// Numbers of notes: the kind is the upper byte.
pub const NOTE_INCOMING: u32 = 0x0100_0000;
/// Also when the session's time is over, its will is published first.
pub const NOTE_WILL: u32 = HOLDS | 0x0200_0000;
pub const NOTE_SUBSCRIPTION: u32 = 0x0300_0000;
/// A message in flight that lies in none of the legs, see `flights.rs`.
pub const NOTE_FLIGHT: u32 = 0x0400_0000;
/// A subscription that is still to be sent what was retained before it.
pub const NOTE_REPLAY: u32 = 0x0500_0000;
pub const NOTE_KIND: u32 = 0xff00_0000;

/// The note of a leg whose subscription is over: no subscription's note is so short.
pub const CLOSING_NOTE: &[u8] = b"\xff";
