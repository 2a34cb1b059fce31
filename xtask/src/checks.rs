//! The checks that need no foreign client.

use crate::report::Report;
use crate::shell::{Step, root, run};
use crate::{layers, tidy};

pub fn check(report: &mut Report) {
    run(report, &Step::cargo("format", &["fmt", "--all", "--check"]));
    report.faults("layers", &layers::faults(&root()));
    report.faults("tidy", &tidy::faults(&root()));
    run(report, &Step::cargo("lints", &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]));
    run(report, &Step::cargo("unit tests", &["test", "--workspace"]));
}
