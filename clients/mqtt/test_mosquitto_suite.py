"""mosquitto's own tests of its broker, unchanged, against Firth: they start what they take for mosquitto, and do not notice.

They compare what a broker sends byte for byte. Each file is one case and runs in a process and a folder of its own, several at a time.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from pathlib import Path

import pytest
import server as servers
from conftest import HAVE, had

from mqtt import posing

AT_ONCE = 6
SECONDS_MAX = 100

# What is not run, as patterns of names, by its reason; the first reason that fits counts.
NOT_RUN = {
    "bridges, which mosquitto starts itself": ["06-bridge-[!n]*"],
    "TLS and pre-shared keys": ["08-*"],
    "plugins, extended authentication, roles and sparkplug, which are plugins too": [
        "*-plugin-*",
        "09-extended-auth-*",
        "14-dynsec-*",
        "20-sparkplug-*",
    ],
    "passwords, access lists, anonymous clients refused": [
        "01-connect-uname-*",
        "01-connect-*allow-anonymous.py",
        "04-retain-check-source*",
        "09-acl-*",
        "09-pwfile-*",
        "23-security-*",
    ],
    "mosquitto's own store, control topics, command line, configuration files and HTTP interface": [
        "15-persist-*",
        "07-will-control.py",
        "16-*",
        "17-control-*",
        "22-http-*",
    ],
    "the proxy protocol": ["21-proxy-*"],
    "settings that Firth does not have": [
        "01-connect-accept-protocol.py",
        "01-connect-auto-id.py",
        "01-connect-global-max-*",
        "01-connect-max-connections.py",
        "01-connect-max-keepalive.py",
        "01-connect-unix-socket.py",
        "01-connect-zero-length-id.py",
        "02-subpub-qos2-max-inflight-bytes.py",
        "0[27]-*oversize-payload.py",
        "03-publish-bad-flags.py",
        "03-publish-qos1-queued-bytes.py",
        "03-publish-qos1-retain-disabled.py",
        "04-retain-upgrade-outgoing-qos.py",
        "10-listener-mount-point.py",
        "13-websocket-bad-origin.py",
    ],
    "wills with a delay of sessions without an expiry, against MQTT-3.1.3-9": ["07-will-delay.py", "07-will-delay-rec*"],
    "a client that repeats a QoS 2 identifier gets another message, or nothing, against MQTT-4.3.3-10": [
        "03-publish-qos2-dup.py",
        "03-publish-qos2-reuse-mid.py",
    ],
    "a receive maximum for 3.1.1, which has none": ["03-publish-qos2-max-inflight-exceeded.py"],
    "packets one byte larger than the client takes, against MQTT-3.1.2-24": ["12-prop-maximum-packet-size-publish-qos*"],
    "an order which the standard leaves open": [
        "02-subpub-recover-subscriptions.py",
        "04-retain-clear-multiple.py",
        "07-will-properties.py",
    ],
    "packet identifiers, which mosquitto gives to messages that wait and counts on over a restart": [
        "02-subpub-qos1-message-expiry.py",
        "03-publish-qos1-max-inflight-expire.py",
        "11-message-expiry.py",
        "11-persistent-subscription-no-local.py",
    ],
}
# How often a file may be run until it passes. One compares two short times; one publishes on one connection and takes for granted that
# this is done when another one subscribes, and now and then it is not.
TRIES = {"01-connect-575314.py": 3, "02-subpub-qos0-topic-alias.py": 3}
# Parts of other files and the suite's own runner.
NO_TESTS = ("*helper.py", "test.py", "ntest.py", "*_core.py", "persist_*")


def reason_not_to_run(name):
    return next((reason for reason, patterns in NOT_RUN.items() if any(fnmatch(name, pattern) for pattern in patterns)), None)


def suite():
    """The folder of the tests; None where it could not be had."""
    file = HAVE / "have.json"
    found = json.loads(file.read_text()).get("mosquitto-suite") if file.exists() else None
    return found and Path(found["tests"])


def all_files():
    names = sorted(file.name for file in suite().glob("*.py")) if suite() else []
    return [name for name in names if not any(fnmatch(name, pattern) for pattern in NO_TESTS)]


def run(name, below, port):
    """Runs one file of the suite, as often as it needs; its exit code and what it said."""
    for _ in range(TRIES.get(name, 1)):
        code, said = run_once(name, Path(tempfile.mkdtemp(dir=below)), ports_of(name, port))
        if code == 0:
            break
    return code, said


def run_once(name, folder, ports):
    here = folder / "test/broker"  # the tests start ../../src/mosquitto
    here.mkdir(parents=True)
    (folder / "src").mkdir()
    wrapper = folder / "src/mosquitto"
    wrapper.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{posing.__file__}" "$@"\n')
    wrapper.chmod(0o755)
    process = subprocess.Popen(
        [sys.executable, str(suite() / name), *map(str, ports)],
        cwd=here,
        env={**os.environ, "FIRTH_BIN": os.path.abspath(servers.BINARY), "BUILD_ROOT": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # and nothing is run in the child: other threads may hold its locks
    )
    try:
        said, _ = process.communicate(timeout=SECONDS_MAX)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        said, _ = process.communicate()
        return "not done", said
    finally:
        # One that gave up leaves its broker behind.
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        shutil.rmtree(folder, ignore_errors=True)
    return process.returncode, said


@pytest.fixture(scope="module")
def results(request, tmp_path_factory):
    """What each chosen file will have said; all of them begin at once."""
    had("mosquitto-suite")
    if servers.PEER_COMMAND or servers.MQTT_PEER_COMMAND or os.environ.get("FIRTH_MQTT_PEER"):
        pytest.skip("poses as mosquitto with Firth's settings")
    chosen = [item.callspec.params["name"] for item in request.session.items if "results" in getattr(item, "fixturenames", ())]
    taken, below = set(), tmp_path_factory.mktemp("suite")

    def port():
        while (one := servers.free_port()) in taken:
            pass
        taken.add(one)
        return one

    with ThreadPoolExecutor(AT_ONCE) as pool:
        begun = {name: pool.submit(run, name, below, port) for name in chosen if name}
        yield begun
        for one in begun.values():
            one.cancel()


def ports_of(name, port):
    """As many as the file asks for: with another count it takes mosquitto's usual ones."""
    asked = max((count for count in (1, 2, 3) if f"get_port({count})" in (suite() / name).read_text()), default=1)
    return [port() for _ in range(asked)]


def chosen_files():
    return [name for name in all_files() if reason_not_to_run(name) is None]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", chosen_files() or [None])
def test_passes_without_knowing_that_this_is_not_mosquitto(results, name):
    code, said = results[name].result()
    assert code == 0, said.decode(errors="replace")


def test_the_page_says_how_many_are_run():
    had("mosquitto-suite")
    page = (servers.ROOT / "docs/reference/mqtt.md").read_text()
    for reason, patterns in NOT_RUN.items():
        unknown = [pattern for pattern in patterns if not any(fnmatch(name, pattern) for name in all_files())]
        assert not unknown, f"{reason}: {unknown} are no files of the suite"
        count = sum(reason_not_to_run(name) == reason for name in all_files())
        assert f"| {reason} | {count} |" in page, f"{reason}: {count} files"
    assert f"{len(chosen_files())} of {len(all_files())} files" in page
