//! Foreign clients against the real binary.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::report::Report;
use crate::setup;
use crate::shell::{Step, root, run, run_beside, target};

/// Which of the foreign-client tests to run.
pub struct Choice {
    word: Option<String>,
    kills: Option<String>,
    torture: bool,
}

impl Choice {
    pub fn all() -> Choice {
        Choice { word: None, kills: None, torture: false }
    }

    pub fn named(word: &str) -> Choice {
        Choice { word: Some(word.to_owned()), kills: None, torture: false }
    }

    pub fn torture() -> Choice {
        Choice { word: None, kills: None, torture: true }
    }

    pub fn kills(rounds: &str) -> Choice {
        Choice { word: Some("test_crash".to_owned()), kills: Some(rounds.to_owned()), torture: false }
    }
}

/// Tests that measure start times and memory, or trace the process: nothing runs beside them.
const ALONE: &[&str] = &["test_scale.py", "mqtt/test_scale.py", "test_sync.py", "test_cli.py", "test_bad_input.py", "test_docs.py"];
/// Two lanes beside each other: one is busy killing and moving records, the other mostly waits for sessions and heartbeats.
const CRASH: &[&str] = &["test_crash.py", "test_checker.py", "test_tiered.py", "test_compaction.py", "test_tools.py"];
const CONVERSE: &[&str] = &["test_matrix.py", "test_groups.py", "test_admin.py", "test_produce.py", "test_captures.py"];

/// MQTT: raw packets, statement by statement, and foreign clients. Some of it measures by the clock: nothing runs beside it.
const MQTT: &[&str] = &[
    "mqtt/test_admin.py",
    "mqtt/test_bridge.py",
    "mqtt/test_clients.py",
    "mqtt/test_connect.py",
    "mqtt/test_crash.py",
    "mqtt/test_crash_outside.py",
    "mqtt/test_crash_steps.py",
    "mqtt/test_delivery.py",
    "mqtt/test_flow.py",
    "mqtt/test_format.py",
    "mqtt/test_full_node.py",
    "mqtt/test_last_values.py",
    "mqtt/test_mosquitto_suite.py",
    "mqtt/test_overflow.py",
    "mqtt/test_properties.py",
    "mqtt/test_publish.py",
    "mqtt/test_retained.py",
    "mqtt/test_sessions.py",
    "mqtt/test_shared.py",
    "mqtt/test_subscribe.py",
    "mqtt/test_table.py",
    "mqtt/test_targets.py",
    "mqtt/test_topics.py",
    "mqtt/test_verdict.py",
    "mqtt/test_websocket.py",
    "mqtt/test_wills.py",
    "mqtt/test_with_kafka.py",
];

/// The drills in their short form, part of every test run; memory and the large store take longer and want a quiet machine.
const DRILLS: &[&str] = &["torture/test_disk_full.py", "torture/test_pause.py", "torture/test_clock.py", "torture/test_damage.py"];
/// All of them, and the killing, with the figures of a long run; what the environment says goes first.
const TORTURE: &[&str] = &[
    "torture/test_disk_full.py",
    "torture/test_memory.py",
    "torture/test_pause.py",
    "torture/test_clock.py",
    "torture/test_damage.py",
    "torture/test_store.py",
    "test_crash.py",
];
const LONG: &[(&str, &str)] =
    &[("FIRTH_FULL_CYCLES", "20"), ("FIRTH_PAUSE_SECONDS", "30"), ("FIRTH_PAUSES", "3"), ("FIRTH_DAMAGES", "1000"), ("FIRTH_KILLS", "200")];

pub fn build_and_run(report: &mut Report, choice: &Choice) {
    let had = setup::set_up(&target().join("clients"));
    for (name, reason) in &had.missing {
        report.skip(name, reason);
    }
    if had.missing.contains_key("python") {
        return;
    }
    report.faults("every client test is in a lane", &without_lane());
    if !given_binary() && !run(report, &Step::cargo("firth binary", &["build", "--release", "--package", "firth"])) {
        return;
    }
    if choice.torture {
        let step = pytest("torture", TORTURE, choice).env("PYTEST_ADDOPTS", "-s");
        let long = LONG.iter().filter(|(name, _)| std::env::var_os(name).is_none());
        run(report, &long.fold(step, |step, (name, value)| step.env(name, value)));
        return;
    }
    if let Some(word) = &choice.word {
        run(report, &pytest("foreign clients", &["-k", word], choice));
        return;
    }
    run(report, &pytest("process", ALONE, choice));
    run(report, &pytest("drills", DRILLS, choice));
    run(report, &pytest("mqtt", MQTT, choice));
    run_beside(report, &[pytest("kill -9", CRASH, choice), pytest("foreign clients", CONVERSE, choice)]);
}

/// Test files that no run would take.
fn without_lane() -> Vec<String> {
    let lanes = [ALONE, CRASH, CONVERSE, MQTT, DRILLS, TORTURE].concat();
    let folder = root().join("clients");
    let mut lost = Vec::new();
    for part in ["", "mqtt/", "torture/"] {
        let Ok(files) = std::fs::read_dir(folder.join(part)) else { continue };
        for name in files.filter_map(|file| file.ok()?.file_name().into_string().ok()) {
            let path = format!("{part}{name}");
            if name.starts_with("test_") && name.ends_with(".py") && !lanes.contains(&path.as_str()) {
                lost.push(format!("clients/{path} is in no lane of xtask/src/clients.rs"));
            }
        }
    }
    lost
}

fn given_binary() -> bool {
    ["FIRTH_BIN", "FIRTH_PEER_BOOTSTRAP", "FIRTH_PEER_COMMAND", "FIRTH_MQTT_PEER", "FIRTH_MQTT_PEER_COMMAND"]
        .iter()
        .any(|name| std::env::var_os(name).is_some())
}

fn pytest(name: &str, what: &[&str], choice: &Choice) -> Step {
    let folder = root().join("clients");
    let place = |word: &&str| if word.ends_with(".py") { folder.join(word).into_os_string() } else { OsString::from(*word) };
    let mut arguments: Vec<OsString> =
        ["-m", "pytest", "-q", "-rsfE", "--durations=5", "--maxfail=20", "-c"].iter().map(OsString::from).collect();
    arguments.push(folder.join("pytest.ini").into());
    arguments.extend(["--rootdir".into(), folder.clone().into_os_string()]);
    if !what.iter().any(|word| word.ends_with(".py")) {
        // MQTT and the drills are found by name only: a plain run of the folder leaves them out. pytest drops a folder that lies in
        // another one it is given, so what it may not enter is said anew.
        arguments.extend(["-o".into(), "norecursedirs=node java".into(), folder.clone().into()]);
    }
    arguments.extend(what.iter().map(place));
    let binary: PathBuf = match std::env::var_os("FIRTH_BIN") {
        Some(binary) => binary.into(),
        None => target().join("release/firth"),
    };
    let clients = target().join("clients");
    let mut step = Step::new(name, clients.join("venv/bin/python"), arguments)
        .env("FIRTH_BIN", binary)
        .env("FIRTH_CLIENTS", clients)
        .env("PYTHONDONTWRITEBYTECODE", "1");
    if let Some(rounds) = &choice.kills {
        // -s: the counts of acknowledged records are what a person who asks for a long run wants to see
        step = step.env("FIRTH_KILLS", rounds).env("PYTEST_ADDOPTS", "-s");
    }
    step
}
