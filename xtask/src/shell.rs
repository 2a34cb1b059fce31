//! Runs commands, passes on what they say, counts tests.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::report::{Counts, Outcome, Report};

/// The repository's root.
pub fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().expect("xtask/ lies in the root").to_path_buf()
}

/// Where cargo puts what it builds.
pub fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(directory) => root().join(directory),
        None => root().join("target"),
    }
}

/// One command of a run.
pub struct Step {
    name: String,
    program: OsString,
    arguments: Vec<OsString>,
    environment: Vec<(String, OsString)>,
}

impl Step {
    pub fn new<A: Into<OsString>>(name: &str, program: impl Into<OsString>, arguments: impl IntoIterator<Item = A>) -> Step {
        let arguments = arguments.into_iter().map(Into::into).collect();
        Step { name: name.to_owned(), program: program.into(), arguments, environment: Vec::new() }
    }

    pub fn cargo(name: &str, arguments: &[&str]) -> Step {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        Step::new(name, cargo, arguments.iter().copied())
    }

    pub fn arguments(mut self, more: &[&str]) -> Step {
        self.arguments.extend(more.iter().map(Into::into));
        self
    }

    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Step {
        self.environment.push((name.to_owned(), value.into()));
        self
    }
}

/// Runs a step, printing its lines as they come.
pub fn run(report: &mut Report, step: &Step) -> bool {
    println!("\n=== {}", step.name);
    let outcome = execute(step, &mut |line| println!("{line}"));
    let good = outcome.good;
    report.add(outcome);
    good
}

/// Runs steps beside each other and prints what each said when it has ended, so that their lines do not mix.
pub fn run_beside(report: &mut Report, steps: &[Step]) {
    let said = std::thread::scope(|scope| {
        let running: Vec<_> = steps
            .iter()
            .map(|step| {
                scope.spawn(move || {
                    let mut lines = Vec::new();
                    let outcome = execute(step, &mut |line| lines.push(line.to_owned()));
                    println!("\n=== {}\n{}", step.name, lines.join("\n"));
                    outcome
                })
            })
            .collect();
        running.into_iter().map(|thread| thread.join().expect("a step does not panic")).collect::<Vec<_>>()
    });
    for outcome in said {
        report.add(outcome);
    }
}

fn execute(step: &Step, each_line: &mut dyn FnMut(&str)) -> Outcome {
    let began = Instant::now();
    let mut tally = Tally::default();
    let good = match spawn(step) {
        Ok(mut child) => {
            let output = child.stdout.take().expect("stdout is piped by spawn");
            for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line);
                each_line(&line);
                tally.note(&line);
            }
            child.wait().is_ok_and(|status| status.success())
        }
        Err(error) => {
            each_line(&format!("{:?} did not start: {error}", step.program));
            false
        }
    };
    let mut counts = tally.counts;
    if counts == Counts::default() {
        // A step that counts no tests is itself the thing that passes or fails.
        counts = Counts { passed: u64::from(good), failed: u64::from(!good), skipped: 0 };
    }
    tally.skips.sort();
    tally.skips.dedup();
    Outcome { name: step.name.clone(), good, counts, took: began.elapsed(), skips: tally.skips }
}

fn spawn(step: &Step) -> std::io::Result<std::process::Child> {
    let mut command = Command::new(&step.program);
    command.args(&step.arguments).current_dir(root()).stdin(Stdio::null()).stdout(Stdio::piped());
    for (name, value) in &step.environment {
        command.env(name, value);
    }
    command.spawn()
}

/// Counts tests from the closing lines of cargo test and pytest.
#[derive(Default)]
struct Tally {
    counts: Counts,
    skips: Vec<String>,
}

impl Tally {
    fn note(&mut self, line: &str) {
        if let Some(rest) = line.strip_prefix("SKIPPED [") {
            // pytest -ra: `SKIPPED [2] test_x.py:10: reason`
            self.skips.push(rest.splitn(2, ": ").last().unwrap_or(rest).to_owned());
        } else if line.starts_with("test result: ") || is_pytest_end(line) {
            self.counts = self.counts.plus(counts_in(line));
        }
    }
}

fn is_pytest_end(line: &str) -> bool {
    let bare = line.trim_matches(['=', ' ']);
    bare.contains(" in ")
        && bare.ends_with(['s', ')'])
        && counts_in(bare) != Counts::default()
        && bare.starts_with(|c: char| c.is_ascii_digit())
}

/// `12 passed; 0 failed; 1 ignored` and `1 failed, 3 passed, 2 skipped, 1 error in 5s`.
fn counts_in(line: &str) -> Counts {
    let mut counts = Counts::default();
    let words: Vec<&str> = line.split([' ', ';', ',']).filter(|word| !word.is_empty()).collect();
    for pair in words.windows(2) {
        let Ok(number) = pair[0].parse::<u64>() else { continue };
        match pair[1] {
            "passed" => counts.passed += number,
            "failed" | "error" | "errors" => counts.failed += number,
            "skipped" | "ignored" => counts.skipped += number,
            _ => {}
        }
    }
    counts
}

/// Runs a command of the set-up quietly, in `directory`; the error is the end of what it said.
pub fn quiet(directory: &Path, program: impl Into<OsString>, arguments: &[&str]) -> Result<String, String> {
    let program = program.into();
    let done = Command::new(&program)
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{} did not start: {error}", program.to_string_lossy()))?;
    if done.status.success() {
        return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
    }
    let said = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    let lines: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
    let end = lines[lines.len().saturating_sub(3)..].join(" / ");
    Err(format!("{} {}: {end}", program.to_string_lossy(), arguments.first().unwrap_or(&"")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(lines: &[&str]) -> (Counts, Vec<String>) {
        let mut tally = Tally::default();
        lines.iter().for_each(|line| tally.note(line));
        (tally.counts, tally.skips)
    }

    #[test]
    fn cargo_and_pytest_are_counted() {
        let cargo = ["running 3 tests", "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s"];
        assert_eq!(tally(&cargo).0, Counts { passed: 3, failed: 0, skipped: 1 });
        let pytest =
            ["SKIPPED [2] test_x.py:10: kcat: no network: today", "== 1 failed, 7 passed, 2 skipped, 1 error in 61.20s (0:01:01) =="];
        assert_eq!(tally(&pytest), (Counts { passed: 7, failed: 2, skipped: 2 }, vec!["kcat: no network: today".to_owned()]));
        assert_eq!(tally(&["5 passed in 0.10s"]).0, Counts { passed: 5, ..Counts::default() });
        assert_eq!(tally(&["we waited 3 passed days"]).0, Counts::default());
    }
}
