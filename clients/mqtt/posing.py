"""Firth in mosquitto's place: called as mosquitto is, it becomes Firth with the settings that say the same.

What Firth has no setting for stays unsaid: the tests that need it are not run (see test_mosquitto_suite.py). A start is a fresh one
unless the configuration asks for persistence and an earlier start with it has made the file that it names.
"""

import argparse
import ctypes
import os
import shutil
import signal
from pathlib import Path

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>

# A line of mosquitto's configuration and the settings of Firth that say it.
SETTINGS = {
    "max_inflight_messages": ("mqtt.receive_maximum", "mqtt.in_flight_max"),
    "max_keepalive": ("mqtt.keep_alive_s_max",),
    "max_packet_size": ("mqtt.packet_bytes_max",),
}


def keeps_data(lines):
    """Whether this start goes on where an earlier one stopped; leaves the sign for the next one."""
    if ("persistence", "true") not in lines:
        return False
    file = Path(dict(lines).get("persistence_file", "mosquitto.db"))
    kept = file.exists()
    file.touch()
    return kept


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("-c", dest="configuration", type=Path)
    parser.add_argument("-p", dest="port")
    parser.add_argument("-v", action="store_true")
    asked = parser.parse_args()
    text = asked.configuration.read_text() if asked.configuration else ""
    lines = [tuple(words) for line in text.splitlines() if len(words := line.strip().split(maxsplit=1)) == 2]
    ports = [value for name, value in lines if name in ("listener", "port")] or [asked.port]
    data = Path("data").resolve()
    if not keeps_data(lines):
        shutil.rmtree(data, ignore_errors=True)
    arguments = [word for port in ports for word in ("--listen", f"mqtt=127.0.0.1:{port}")]
    arguments += [word for name, value in lines for setting in SETTINGS.get(name, ()) for word in ("--set", f"{setting}={value}")]
    arguments += ["--set", "journal.extent_bytes=4194304"]  # more than a hundred of them are started
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # a test that is killed leaves no broker behind
    binary = os.environ["FIRTH_BIN"]
    os.execv(binary, [binary, "serve", "--data", str(data), *arguments])


if __name__ == "__main__":
    main()
