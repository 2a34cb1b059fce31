//! Whether the system's clock can be believed.
//!
//! Timers, append times and ages all use this time. It runs with a steady clock and is drawn towards the system's clock a little faster
//! or slower, so that a clock that is set neither expires every session at once nor stops them. A clock that is off by more than an
//! hour is not followed: deletion by age pauses, the log says so, and only after an hour of steady time is the clock believed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use firth_model::time::{Clock, Millis};

/// A clock that is further off was set wrongly, now or before.
const TRUSTED_WITHIN_MS: i64 = 60 * 60 * 1000;
/// How long a clock must go on saying so before it is believed.
const BELIEVED_AFTER_MS: i64 = 60 * 60 * 1000;
/// A tenth faster or slower: timers stay within what their owners expect of them.
const SLEW_DIVISOR: i64 = 10;

pub struct ClockWatch {
    wall: Clock,
    /// Milliseconds since any moment; never set.
    steady: Clock,
    state: Mutex<State>,
    agrees: AtomicBool,
}

struct State {
    now: i64,
    steady: i64,
    /// Added to the system's clock: it went back, that was believed, and this time does not go back.
    ahead: i64,
    disagrees_since: Option<i64>,
}

impl ClockWatch {
    pub fn over(wall: Clock, steady: Clock) -> Arc<ClockWatch> {
        let state = State { now: wall().0, steady: steady().0, ahead: 0, disagrees_since: None };
        Arc::new(ClockWatch { wall, steady, state: Mutex::new(state), agrees: AtomicBool::new(true) })
    }

    /// The time, as a clock for everybody.
    pub fn clock(self: &Arc<Self>) -> Clock {
        let watch = self.clone();
        Arc::new(move || watch.now())
    }

    /// Whether the system's clock was near this time when it was last read. If not, nothing should be deleted for its age.
    pub fn agrees(&self) -> bool {
        self.agrees.load(Ordering::Relaxed)
    }

    /// The log holds entries of this time already.
    pub fn not_before(&self, last: Millis) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.now = state.now.max(last.0);
    }

    pub fn now(&self) -> Millis {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (wall, steady) = ((self.wall)().0, (self.steady)().0);
        let elapsed = steady.saturating_sub(state.steady).max(0);
        state.steady = state.steady.max(steady);
        state.now = state.now.saturating_add(elapsed);
        let off = wall.saturating_add(state.ahead).saturating_sub(state.now);
        if off.saturating_abs() <= TRUSTED_WITHIN_MS {
            let slew = elapsed / SLEW_DIVISOR;
            state.now = state.now.saturating_add(off.clamp(-slew, slew));
            if state.disagrees_since.take().is_some() {
                self.agrees.store(true, Ordering::Relaxed);
                tracing::warn!("the system's clock agrees again: deletion by age goes on");
            }
        } else {
            self.disagree(&mut state, off);
        }
        Millis(state.now)
    }

    fn disagree(&self, state: &mut State, off_ms: i64) {
        let since = *state.disagrees_since.get_or_insert_with(|| {
            self.agrees.store(false, Ordering::Relaxed);
            let (off_seconds, hours) = (off_ms / 1000, BELIEVED_AFTER_MS / 3_600_000);
            tracing::warn!(off_seconds, "the system's clock jumped: deletion by age pauses until it agrees again, or for {hours} h");
            state.steady
        });
        if state.steady.saturating_sub(since) < BELIEVED_AFTER_MS {
            return;
        }
        if off_ms > 0 {
            state.now = state.now.saturating_add(off_ms);
        } else {
            state.ahead = state.ahead.saturating_sub(off_ms);
        }
        state.disagrees_since = None;
        self.agrees.store(true, Ordering::Relaxed);
        tracing::warn!("the system's clock is believed now: deletion by age goes on");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicI64;

    use super::*;

    const START: i64 = 1_800_000_000_000;
    const HOUR: i64 = 3_600_000;
    const YEARS: i64 = 10 * 365 * 24 * HOUR;

    struct Hands {
        wall: Arc<AtomicI64>,
        steady: Arc<AtomicI64>,
        watch: Arc<ClockWatch>,
    }

    impl Hands {
        fn set() -> Hands {
            let (wall, steady) = (Arc::new(AtomicI64::new(START)), Arc::new(AtomicI64::new(7)));
            let read = |hand: &Arc<AtomicI64>| -> Clock {
                let hand = hand.clone();
                Arc::new(move || Millis(hand.load(Ordering::Relaxed)))
            };
            let watch = ClockWatch::over(read(&wall), read(&steady));
            Hands { wall, steady, watch }
        }

        /// Both clocks run for a while, looked at every second.
        fn run(&self, ms: i64) -> i64 {
            let mut before = self.watch.now().0;
            for _ in 0..ms / 1000 {
                self.wall.fetch_add(1000, Ordering::Relaxed);
                self.steady.fetch_add(1000, Ordering::Relaxed);
                let now = self.watch.now().0;
                assert!(now > before, "time goes on, never back");
                assert!(now - before <= 1100 || self.watch.agrees(), "timers see no jump");
                before = now;
            }
            before
        }

        fn jump(&self, ms: i64) {
            self.wall.fetch_add(ms, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_clock_that_runs_is_followed() {
        let hands = Hands::set();
        assert_eq!(hands.run(HOUR), START + HOUR);
        assert!(hands.watch.agrees());
    }

    #[test]
    fn a_small_step_is_made_up_for_slowly() {
        for step in [600_000, -600_000] {
            let hands = Hands::set();
            hands.jump(step);
            let soon = hands.run(10_000);
            assert!((soon - START - 10_000).abs() <= 1000, "no jump");
            assert_eq!(hands.run(2 * HOUR), START + 10_000 + 2 * HOUR + step);
            assert!(hands.watch.agrees());
        }
    }

    #[test]
    fn a_jump_pauses_deletion_until_the_clock_is_back() {
        for jump in [YEARS, -YEARS, HOUR + 2000, -HOUR - 2000] {
            let hands = Hands::set();
            hands.jump(jump);
            assert_eq!(hands.run(60_000), START + 60_000, "timers go on as before");
            assert!(!hands.watch.agrees());
            hands.jump(-jump);
            assert_eq!(hands.run(60_000), START + 120_000);
            assert!(hands.watch.agrees());
        }
    }

    #[test]
    fn a_clock_that_insists_is_believed_after_an_hour() {
        let hands = Hands::set();
        hands.jump(YEARS);
        assert!(hands.run(HOUR + 5000) >= START + YEARS + HOUR);
        assert!(hands.watch.agrees());
        hands.jump(-YEARS);
        assert!(hands.run(HOUR + 5000) >= START + YEARS + 2 * HOUR, "time does not go back");
        assert!(hands.watch.agrees());
        hands.run(HOUR);
        assert!(hands.watch.agrees());
    }

    #[test]
    fn a_start_with_a_clock_behind_the_log_deletes_nothing() {
        let hands = Hands::set();
        hands.watch.not_before(Millis(START + YEARS));
        assert!(hands.run(60_000) >= START + YEARS + 60_000);
        assert!(!hands.watch.agrees());
    }
}
