//! How often a worker of the runtime asks the kernel for work.
//!
//! Under load a message comes every few microseconds. A worker that goes to sleep for so short a time is woken by a sender that pays for
//! it, and reads one message where a moment later there are ten. So a worker that lately slept next to nothing takes at least a cycle for
//! each look at its sockets: it pauses where nobody has to wake it, and what came meanwhile is read and written together. With less to do
//! than that it sleeps in the kernel as ever, and nothing waits.

use std::cell::Cell;
use std::num::NonZeroU64;
use std::thread;
use std::time::{Duration, Instant};

/// A worker that slept less lately is under load.
const SHORT_SLEEP: Duration = Duration::from_micros(20);
/// From one look to the next, at least: a latency of half of it under load, on average, for a half of the processor time.
const CYCLE: Duration = Duration::from_micros(100);
/// How exactly a pause ends; the kernel's usual 50 microseconds would be half a cycle.
const TIMER_SLACK_NS: NonZeroU64 = NonZeroU64::new(1_000).expect("not zero");

/// What a worker remembers of its last turn.
#[derive(Clone, Copy, Default)]
struct Turn {
    slept_at: Option<Instant>,
    woken_at: Option<Instant>,
    is_short: bool,
}

thread_local! {
    static TURN: Cell<Turn> = Cell::default();
}

impl Turn {
    /// How long to pause before the worker sleeps.
    fn pause(&self, now: Instant) -> Option<Duration> {
        let worked = now.duration_since(self.woken_at?);
        CYCLE.checked_sub(worked).filter(|pause| self.is_short && !pause.is_zero())
    }

    fn woken(self, now: Instant) -> Turn {
        let slept = self.slept_at.map(|since| now.duration_since(since));
        Turn { slept_at: None, woken_at: Some(now), is_short: slept.is_some_and(|slept| slept < SHORT_SLEEP) }
    }
}

/// Gives the runtime's workers their pace.
pub fn keep(builder: &mut tokio::runtime::Builder) -> &mut tokio::runtime::Builder {
    builder.on_thread_start(begins).on_thread_park(will_sleep).on_thread_unpark(is_woken)
}

fn begins() {
    if let Err(error) = rustix::thread::set_current_timer_slack(Some(TIMER_SLACK_NS)) {
        tracing::debug!(%error, "pauses under load will be longer");
    }
}

fn will_sleep() {
    let turn = TURN.get();
    if let Some(pause) = turn.pause(Instant::now()) {
        thread::sleep(pause);
    }
    TURN.set(Turn { slept_at: Some(Instant::now()), ..turn });
}

fn is_woken() {
    TURN.set(TURN.get().woken(Instant::now()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_slept_for_a_moment_pauses_for_what_is_left_of_its_cycle() {
        let begin = Instant::now();
        let at = |us| begin + Duration::from_micros(us);
        assert_eq!(Turn::default().pause(at(1)), None, "nothing is known");
        let after = |slept, worked| Turn { slept_at: Some(at(0)), ..Turn::default() }.woken(at(slept)).pause(at(slept + worked));
        assert_eq!(after(5, 30), Some(Duration::from_micros(70)));
        assert_eq!(after(19, 99), Some(Duration::from_micros(1)));
        assert_eq!(after(5, 100), None, "there is as much to do as a cycle takes");
        assert_eq!(after(5, 5000), None);
        assert_eq!(after(20, 30), None, "little comes");
        assert_eq!(after(900, 1), None);
    }
}
