"""The command line: what a person types first, and what goes wrong first."""

import json
import os
import re
import signal
import socket
import subprocess
import time

import pytest
from peers.base import Record
from wire import Wire, batch


@pytest.fixture
def run(real_binary, tmp_path):
    """Runs the binary to its end in an empty directory."""

    def call(*arguments, env=None, seconds=20):
        return subprocess.run(
            [real_binary, *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=seconds,
            cwd=tmp_path,
            env={**os.environ, **(env or {})},
        )

    return call


def test_version_and_help(run):
    assert re.match(r"firth \d+\.\d+\.\d+", run("--version").stdout)
    for arguments in (["--help"], ["serve", "--help"], ["verify", "--help"]):
        done = run(*arguments)
        assert done.returncode == 0
        assert "firth" in done.stdout
    assert "xample" in run("--help").stdout, "help with examples"
    assert "--ready-file" in run("serve", "--help").stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completions(run, shell):
    done = run("completions", shell)
    assert done.returncode == 0 and "verify" in done.stdout


def test_unknown_words_get_a_suggestion(run, tmp_path):
    config = tmp_path / "firth.toml"
    config.write_text("[kafka]\nprot = 9092\n")
    done = run("serve", "--config", config, "--data", tmp_path / "d")
    assert done.returncode != 0
    assert "prot" in done.stderr and "port" in done.stderr.replace("prot", ""), done.stderr
    done = run("serve", "--data", tmp_path / "d", env={"FIRTH_KAFKA__PROT": "1"})
    assert done.returncode != 0 and "port" in done.stderr.lower().replace("prot", ""), done.stderr
    done = run("serve", "--dta", tmp_path / "d")
    assert done.returncode != 0 and "--data" in done.stderr


def test_wrong_values_are_named(run, tmp_path):
    config = tmp_path / "firth.toml"
    config.write_text('[kafka]\nport = "many"\n')
    done = run("serve", "--config", config, "--data", tmp_path / "d")
    assert done.returncode != 0 and "port" in done.stderr
    done = run("serve", "--config", tmp_path / "absent.toml", "--data", tmp_path / "d")
    assert done.returncode != 0 and "absent.toml" in done.stderr


def test_flag_beats_environment_beats_file(real_binary, make_server, tmp_path):
    from server import free_port

    by_file, by_environment = free_port(), free_port()
    config = tmp_path / "firth.toml"
    config.write_text(f"[kafka]\nport = {by_file}\n")

    def port_of(*arguments, env=None):
        ready = tmp_path / "ready.json"
        ready.unlink(missing_ok=True)
        command = [real_binary, "serve", "--data", str(tmp_path / "d"), "--config", str(config), "--ready-file", str(ready), *arguments]
        process = subprocess.Popen(command, env={**os.environ, **(env or {})}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + 20
            while not ready.exists():
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.01)
            said = json.loads(ready.read_text())
            assert said["pid"] == process.pid
            return int(said["listeners"]["kafka"].rsplit(":", 1)[1])
        finally:
            process.terminate()
            process.wait(15)

    assert port_of() == by_file
    assert port_of(env={"FIRTH_KAFKA__PORT": str(by_environment)}) == by_environment
    assert port_of("--listen", "kafka=127.0.0.1:0", env={"FIRTH_KAFKA__PORT": str(by_environment)}) not in (0, by_file, by_environment)


def test_other_addresses_need_a_word(run, real_binary, tmp_path):
    """Without sign-in, an address beyond loopback is refused unless the person insists."""
    done = run("serve", "--data", tmp_path / "d", "--listen", "kafka=0.0.0.0:0")
    assert done.returncode != 0 and "--allow-insecure" in done.stderr, done.stderr
    ready = tmp_path / "ready.json"
    command = [
        real_binary,
        "serve",
        "--data",
        str(tmp_path / "d"),
        "--listen",
        "kafka=0.0.0.0:0",
        "--allow-insecure",
        "--ready-file",
        str(ready),
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 20
        while not ready.exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        process.terminate()
        assert process.wait(15) == 0


def test_advertised_address_is_what_clients_hear(real_binary, make_server, java):
    server = make_server(arguments=["--advertise", "kafka=localhost:12345"])
    server.start()
    with Wire(server.bootstrap) as wire:
        answer = wire.ask(3, 1, b"\xff\xff\xff\xff")
    assert b"localhost" in answer and (12345).to_bytes(4, "big") in answer


def test_second_process_on_the_same_data_is_refused(run, firth, real_binary):
    done = run("serve", "--data", firth.data, "--listen", "kafka=127.0.0.1:0")
    assert done.returncode != 0
    assert str(firth.data) in done.stderr or "in use" in done.stderr, done.stderr
    assert firth.alive()


def test_taken_port_is_named(run, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = run("serve", "--data", tmp_path / "d", "--listen", f"kafka={address}")
    assert done.returncode != 0 and address in done.stderr, done.stderr


@pytest.mark.parametrize("word", [signal.SIGTERM, signal.SIGINT])
def test_signals_drain(real_binary, firth, word):
    """A client that waits in a long fetch does not hold the server up; the code is that of a good end."""
    import struct

    from wire import FETCH, text

    with Wire(firth.bootstrap) as wire, Wire(firth.bootstrap) as waiting:
        wire.ask(3, 4, struct.pack(">i", 1) + text("t") + b"\x01")
        assert wire.produce("t", batch([b"last"]))[:2] == (0, 0)
        body = (
            struct.pack(">iiiib", -1, 60_000, 1 << 20, 1 << 20, 0)
            + struct.pack(">i", 1)
            + text("t")
            + struct.pack(">iiqi", 1, 0, 1, 1 << 20)
        )
        waiting.send(FETCH, 4, body)
        began = time.monotonic()
        os.kill(firth.pid, word)
        assert firth.process.wait(12) == 0, firth.said()
        assert time.monotonic() - began < 10
    firth.start()
    with Wire(firth.bootstrap) as wire:
        assert wire.fetch("t")[1] == 1


def data_files(directory):
    return sorted((file for file in directory.rglob("*") if file.is_file()), key=lambda file: -file.stat().st_size)


def test_verify_finds_a_flipped_byte(run, firth, java, fresh):
    """`firth verify` is content with what was written, and tells of one changed byte; a start on it is refused, never a truncation."""
    topic, marker = fresh(), b"needle-in-the-journal"
    java.produce(firth.bootstrap, topic, [Record(None, marker), Record(None, b"later")])
    for _ in range(5):
        java.produce(firth.bootstrap, topic, [Record(None, b"and later")])
    firth.stop()
    done = run("verify", "--data", firth.data)
    assert done.returncode == 0, done.stdout + done.stderr
    for file in data_files(firth.data):
        held = file.read_bytes()
        if marker in held:
            break
    else:
        raise AssertionError("no file holds the record")
    at = held.index(marker)
    file.write_bytes(held[:at] + b"N" + held[at + 1 :])
    done = run("verify", "--data", firth.data)
    assert done.returncode != 0
    assert f"extent {int(file.stem, 16)}" in done.stdout and "DAMAGED" in done.stdout, done.stdout + done.stderr
    size = file.stat().st_size
    done = run("serve", "--data", firth.data, "--listen", "kafka=127.0.0.1:0", seconds=30)
    assert done.returncode != 0 and "verify" in done.stderr, done.stderr
    assert file.stat().st_size == size, "nothing was cut"


def test_quiet_by_default(real_binary, firth):
    """A good client leaves no line in the log beyond the banner."""
    before = len(firth.said())
    with Wire(firth.bootstrap) as wire:
        assert wire.api_versions()
    firth.stop()
    assert len(firth.said()) - before < 400, firth.said()
