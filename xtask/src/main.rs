//! Everything a developer types.

mod checks;
mod circles;
mod clients;
mod layers;
mod report;
mod setup;
mod shell;
mod source;
mod tidy;

use std::process::ExitCode;

use crate::report::Report;
use crate::shell::{Step, run};

const USAGE: &str = "\
cargo xtask test             everything: check, then the binary against foreign clients (sets them up first)
cargo xtask check            format, lints, layers, tidy, unit tests; needs no network
cargo xtask clients [WORD]   the foreign-client tests only, those whose name has WORD
cargo xtask kill --rounds N  the kill -9 test with N kills
cargo xtask torture          the drills, long: disk full, memory, pauses, clocks, damage, 200 kills
cargo xtask sim --seeds N [--minutes M] [--from S]
                             the simulation with N seeds, for M minutes at most, from seed S on
cargo xtask layers           who may import whom, by the table in ARCHITECTURE.md
cargo xtask tidy             captions, lengths, names, links";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut report = Report::default();
    match words.as_slice() {
        ["test"] => {
            checks::check(&mut report);
            clients::build_and_run(&mut report, &clients::Choice::all());
        }
        ["check"] => checks::check(&mut report),
        ["clients"] => clients::build_and_run(&mut report, &clients::Choice::all()),
        ["clients", word] => clients::build_and_run(&mut report, &clients::Choice::named(word)),
        ["kill", "--rounds", rounds] => clients::build_and_run(&mut report, &clients::Choice::kills(rounds)),
        ["torture"] => clients::build_and_run(&mut report, &clients::Choice::torture()),
        ["sim", options @ ..] => {
            let step = Step::cargo("simulation", &["run", "--release", "--package", "firth-sim", "--"]).arguments(options);
            run(&mut report, &step);
        }
        ["layers"] => report.faults("layers", &layers::faults(&shell::root())),
        ["tidy"] => report.faults("tidy", &tidy::faults(&shell::root())),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(64);
        }
    }
    report.close()
}
