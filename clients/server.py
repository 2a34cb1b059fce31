"""The server under test as a child process: started, killed, started again on the same data and the same port."""

import ctypes
import json
import os
import random
import shlex
import signal
import socket
import subprocess
import time
from pathlib import Path

from waiting import wait_until

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
ROOT = Path(__file__).resolve().parent.parent
BINARY = os.environ.get("FIRTH_BIN", str(ROOT / "target/release/firth"))
# Another broker in place of Firth, to prove the tests themselves: its address, or a command called with PORT and DATA DIRECTORY.
PEER_BOOTSTRAP = os.environ.get("FIRTH_PEER_BOOTSTRAP")
PEER_COMMAND = os.environ.get("FIRTH_PEER_COMMAND")
# The same for servers that were asked to speak MQTT; clients/mqtt/__init__.py says more.
MQTT_PEER_COMMAND = os.environ.get("FIRTH_MQTT_PEER_COMMAND")


def free_port():
    """A port below the range from which the kernel takes the ports of outgoing connections: a client that hammers a stopped
    server could otherwise be given the server's own port."""
    while True:
        port = random.SystemRandom().randrange(12000, 30000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue


def end_with_parent():
    """Runs in the child before the server: a test run that is killed leaves no server behind."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Server:
    """One node. `settings` become environment variables (`journal.extent_bytes` is FIRTH_JOURNAL__EXTENT_BYTES); `mqtt` makes it listen
    to MQTT too, on TCP and WebSocket."""

    def __init__(self, directory, settings=None, wrap=(), arguments=(), mqtt=False):
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.data = self.directory / "data"
        self.ready = self.directory / "ready.json"
        self.output = self.directory / "output.log"
        self.settings = settings or {}
        self.wrap = list(wrap)
        self.arguments = list(arguments)
        self.port = free_port()
        self.mqtt_port = free_port() if mqtt else None
        self.mqtt_ws_port = free_port() if mqtt and not MQTT_PEER_COMMAND else None
        self.process = None
        self.pid = None

    @property
    def bootstrap(self):
        return f"127.0.0.1:{self.port}"

    @property
    def mqtt_address(self):
        return ("127.0.0.1", self.mqtt_port)

    @property
    def mqtt_ws_address(self):
        """Where it listens to MQTT over WebSocket; None where it does not."""
        return self.mqtt_ws_port and ("127.0.0.1", self.mqtt_ws_port)

    def peer(self):
        """The command of another broker in Firth's place and the port it is given; None where it is Firth itself."""
        if self.mqtt_port and MQTT_PEER_COMMAND:
            return MQTT_PEER_COMMAND, self.mqtt_port
        return (PEER_COMMAND, self.port) if PEER_COMMAND else None

    def command(self):
        if peer := self.peer():
            return [*shlex.split(peer[0]), str(peer[1]), str(self.data)]
        mqtt = ("--listen", f"mqtt=127.0.0.1:{self.mqtt_port}", "--listen", f"mqtt-ws=127.0.0.1:{self.mqtt_ws_port}")
        return [
            *self.wrap,
            BINARY,
            "serve",
            "--data",
            str(self.data),
            "--listen",
            f"kafka=127.0.0.1:{self.port}",
            *(mqtt if self.mqtt_port else ()),
            "--ready-file",
            str(self.ready),
            *self.arguments,
        ]

    def start(self, seconds=30):
        """Starts and waits until the server says it is ready; returns the seconds that took."""
        self.ready.unlink(missing_ok=True)
        env = dict(os.environ)
        for name, value in self.settings.items():
            env["FIRTH_" + name.upper().replace(".", "__")] = str(value)
        began = time.monotonic()
        with open(self.output, "ab") as output:
            self.process = subprocess.Popen(
                self.command(), stdout=output, stderr=output, env=env, start_new_session=True, preexec_fn=end_with_parent
            )
        wait_until(self.is_ready, seconds, lambda: f"server ready; it said: {self.said()}", every=0.005)
        return time.monotonic() - began

    def is_ready(self):
        if self.process.poll() is not None:
            raise AssertionError(f"server ended with {self.process.returncode}: {self.said()}")
        if peer := self.peer():
            self.pid = self.process.pid
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", peer[1])) == 0
        if not self.ready.exists():
            return False
        ready = json.loads(self.ready.read_text())
        self.pid = ready["pid"]
        return ready["listeners"]["kafka"] == self.bootstrap

    def said(self):
        return self.output.read_text(errors="replace")[-4000:] if self.output.exists() else ""

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def kill9(self):
        """SIGKILL to the server itself (and to a tracer around it), and no return before both are gone."""
        if self.alive():
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(10)

    def stop(self, seconds=15):
        """SIGTERM; returns the exit code."""
        if self.alive():
            os.kill(self.pid or self.process.pid, signal.SIGTERM)
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                self.kill9()
                raise AssertionError(f"server did not end within {seconds} s of SIGTERM: {self.said()}") from None
        return self.process.returncode

    def restart(self):
        self.stop()
        return self.start()

    def rss_bytes(self):
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no VmRSS")


class Elsewhere:
    """A broker that somebody else runs: nothing here starts or stops it."""

    def __init__(self, bootstrap):
        self.bootstrap = bootstrap
        self.port = int(bootstrap.rsplit(":", 1)[1])

    def alive(self):
        return True
