"""kill -9 at random moments under load: nothing acknowledged is lost, nothing invented, nothing twice that must not be."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from checker import Publisher, judge
from conftest import had
from publisher import PARTITIONS
from waiting import wait_until

ROUNDS = int(os.environ.get("FIRTH_KILLS", "60"))
RATE = 700  # records a second of each publisher
KINDS = {"p0": "librdkafka/idempotent", "p1": "librdkafka/plain", "p2": "kafka-python/plain", "p3": "kafka-python/idempotent"}


def read_log(bootstrap, topic):
    """Everything in the topic, read by a client that published none of it: kcat where there is one."""
    kcat = had("kcat")
    for partition in range(PARTITIONS):
        command = [
            kcat["command"],
            "-C",
            "-b",
            bootstrap,
            "-t",
            topic,
            "-p",
            str(partition),
            "-o",
            "beginning",
            "-e",
            "-q",
            "-f",
            "%o %s\n",
        ]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "LD_LIBRARY_PATH": kcat["libraries"]})
        for line in process.stdout:
            offset, value = line.rstrip(b"\n").split(b" ", 1)
            yield partition, int(offset), value
        assert process.wait(60) == 0


class Acks:
    """Counts the acknowledgements in growing files, reading only what is new."""

    def __init__(self, files):
        self.files = files
        self.read = dict.fromkeys(files, 0)
        self.counted = dict.fromkeys(files, 0)

    def now(self):
        for name, path in self.files.items():
            if path.exists():
                with open(path, "rb") as file:
                    file.seek(self.read[name])
                    new = file.read()
                self.read[name] += len(new)
                self.counted[name] += new.count(b"K ")
        return dict(self.counted)

    def total(self):
        return sum(self.now().values())


@pytest.mark.timeout(120 + 8 * ROUNDS)
def test_kill_minus_nine_loses_nothing(make_server, java, tmp_path, fresh, seed):
    chance, topic = random.Random(seed), fresh("crash")
    server = make_server(settings={"journal.extent_bytes": 4 << 20})
    server.start()
    java.admin(server.bootstrap, "create_topic", topic=topic, partitions=PARTITIONS)
    files = {name: tmp_path / f"{name}.log" for name in KINDS}
    script = str(Path(__file__).parent / "publisher.py")
    publishers = {
        name: subprocess.Popen(
            [sys.executable, script, kind, name, server.bootstrap, topic, str(files[name]), str(RATE)], stdin=subprocess.PIPE
        )
        for name, kind in KINDS.items()
    }
    try:
        acks, slowest, began = Acks(files), 0.0, time.monotonic()
        for _ in range(ROUNDS):
            # Not before somebody has been acknowledged since the last kill; then at any moment, in a sync or between two.
            before = acks.total()
            wait_until(lambda: acks.total() > before, 40, "publishers go on after a restart")
            time.sleep(chance.uniform(0, 0.8))
            server.kill9()
            slowest = max(slowest, server.start())
        took = time.monotonic() - began
        before = acks.now()
        wait_until(lambda: all(count > before[name] for name, count in acks.now().items()), 60, "every publisher goes on")
        for publisher in publishers.values():
            publisher.stdin.close()
        for name, publisher in publishers.items():
            assert publisher.wait(90) == 0, name
    finally:
        for publisher in publishers.values():
            publisher.kill()
    verdicts = [Publisher(name, KINDS[name].endswith("/idempotent"), path) for name, path in files.items()]
    acked = {verdict.name: verdict.acked for verdict in verdicts}
    faults, repeats = judge(verdicts, read_log(server.bootstrap, topic))
    print(f"{ROUNDS} kills in {took:.0f} s, slowest start {slowest:.2f} s, acknowledged {acked}, repeats of plain publishers {repeats}")
    assert not faults, "\n".join(faults[:20])
    assert all(verdict.ended and not verdict.failed for verdict in verdicts), [(v.name, v.ended, v.failed) for v in verdicts]
    assert all(count > ROUNDS for count in acked.values()), acked
