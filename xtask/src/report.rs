//! What ran, what passed, what was skipped and why.

use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How many tests of each outcome a step told of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub passed: u64,
    pub failed: u64,
    pub skipped: u64,
}

impl Counts {
    pub fn plus(self, other: Counts) -> Counts {
        Counts { passed: self.passed + other.passed, failed: self.failed + other.failed, skipped: self.skipped + other.skipped }
    }
}

/// One line of the table.
pub struct Outcome {
    pub name: String,
    pub good: bool,
    pub counts: Counts,
    pub took: Duration,
    /// Reasons of what was skipped, each once.
    pub skips: Vec<String>,
}

#[derive(Default)]
pub struct Report {
    outcomes: Vec<Outcome>,
}

impl Report {
    pub fn add(&mut self, outcome: Outcome) {
        self.outcomes.push(outcome);
    }

    /// A rule of our own: prints what breaks it; none is a pass.
    pub fn faults(&mut self, name: &str, faults: &[String]) {
        let began = Instant::now();
        for fault in faults {
            eprintln!("{name}: {fault}");
        }
        self.add(Outcome {
            name: name.to_owned(),
            good: faults.is_empty(),
            counts: Counts { passed: u64::from(faults.is_empty()), failed: faults.len() as u64, skipped: 0 },
            took: began.elapsed(),
            skips: Vec::new(),
        });
    }

    /// Something that could not be had: named, counted as skipped, never as passed.
    pub fn skip(&mut self, name: &str, reason: &str) {
        self.add(Outcome {
            name: name.to_owned(),
            good: true,
            counts: Counts { skipped: 1, ..Counts::default() },
            took: Duration::ZERO,
            skips: vec![reason.to_owned()],
        });
    }

    pub fn good(&self) -> bool {
        self.outcomes.iter().all(|outcome| outcome.good)
    }

    /// Prints the table; the exit code is that of the worst line.
    pub fn close(self) -> ExitCode {
        println!("\n{:<28} {:>7} {:>7} {:>8} {:>8}", "step", "passed", "failed", "SKIPPED", "seconds");
        let mut total = Counts::default();
        for outcome in &self.outcomes {
            let Counts { passed, failed, skipped } = outcome.counts;
            let mark = if outcome.good { "" } else { "  FAILED" };
            println!("{:<28} {passed:>7} {failed:>7} {skipped:>8} {:>8.1}{mark}", outcome.name, outcome.took.as_secs_f64());
            total = total.plus(outcome.counts);
        }
        for outcome in &self.outcomes {
            for skip in &outcome.skips {
                println!("SKIPPED in {}: {skip}", outcome.name);
            }
        }
        println!("{} passed, {} failed, {} skipped", total.passed, total.failed, total.skipped);
        if self.good() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
