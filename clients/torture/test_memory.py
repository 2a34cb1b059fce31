"""A node in 512 MiB with a backlog many times that, and fifty consumers that hardly read: it lives, and publishes as fast as before."""

import os
import socket
import statistics
import struct
import threading
import time
from collections import deque

import pytest
from cgroup import MemoryGroup
from waiting import wait_until
from wire import FETCH, PRODUCE, Wire, batch, produce_answer, produce_body, split_batches, text

MIB = 1 << 20
MEMORY_BYTES = 512 * MIB
BACKLOG_BYTES = int(os.environ.get("FIRTH_BACKLOG_BYTES", str(1 << 30)))
SLOW = 50
PARTITIONS = 16
WINDOW_SECONDS = 3
RECORD_BYTES = 1024
BATCH_RECORDS = 250
IN_FLIGHT = 8


def fetch_body(topic, offsets, bytes_each, bytes_max=50 * MIB):
    """Fetch version 4 for many partitions, as consumers with the usual limits ask."""
    partitions = b"".join(struct.pack(">iqi", partition, offset, bytes_each) for partition, offset in offsets.items())
    head = struct.pack(">iiiib", -1, 500, 1, bytes_max, 0) + struct.pack(">i", 1) + text(topic)
    return head + struct.pack(">i", len(offsets)) + partitions


class Publisher:
    """Raw publishes in flight, over the partitions in turn; little work for this side."""

    def __init__(self, bootstrap, topic):
        self.wire, self.topic = Wire(bootstrap, timeout=60), topic
        self.payload = batch([os.urandom(RECORD_BYTES) for _ in range(BATCH_RECORDS)])
        self.turn = 0
        self.waiting = deque()

    def publish(self, enough):
        """Until `enough(bytes)`; returns the bytes that were acknowledged."""
        acknowledged = 0
        while True:
            done = enough(acknowledged)
            while not done and len(self.waiting) < IN_FLIGHT:
                body = produce_body(self.topic, self.payload, self.turn % PARTITIONS)
                self.waiting.append(self.wire.send(PRODUCE, 7, body))
                self.turn += 1
            if done and not self.waiting:
                return acknowledged
            correlation, answer = self.wire.receive()
            assert correlation == self.waiting.popleft()
            error = produce_answer(answer)[0]
            assert error == 0, error
            acknowledged += len(self.payload)

    def rate(self):
        """MiB a second, the median of three windows."""
        rates = []
        for _ in range(3):
            began = time.monotonic()
            published = self.publish(lambda _: time.monotonic() - began >= WINDOW_SECONDS)
            rates.append(published / MIB / (time.monotonic() - began))
        return statistics.median(rates)


class SlowConsumers(threading.Thread):
    """Each asks for as much as a consumer may, and reads a few KiB a second of it through a small buffer."""

    def __init__(self, bootstrap, topic, ends):
        super().__init__(daemon=True)
        self.wires, self.read, self.stopping = [], 0, False
        for index in range(SLOW):
            host, port = bootstrap.rsplit(":", 1)
            wire = Wire.__new__(Wire)
            wire.socket, wire.correlation = socket.socket(), 0
            wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            wire.socket.connect((host, int(port)))
            # From the beginning, from somewhere between, and near the end.
            offsets = {partition: end * index // SLOW for partition, end in ends.items()}
            wire.send(FETCH, 4, fetch_body(topic, offsets, 10 * MIB))
            wire.socket.setblocking(False)
            self.wires.append(wire)

    def run(self):
        while not self.stopping:
            for wire in self.wires:
                try:
                    self.read += len(wire.socket.recv(1024))
                except BlockingIOError:
                    continue
            time.sleep(0.25)

    def stop(self):
        self.stopping = True
        self.join()
        for wire in self.wires:
            wire.close()


@pytest.fixture
def group():
    made = MemoryGroup(MEMORY_BYTES)
    yield made
    made.close()


def ends_of(bootstrap, topic):
    with Wire(bootstrap) as wire:
        return {partition: wire.fetch(topic, partition, 0, bytes_max=1, wait_ms=0)[1] for partition in range(PARTITIONS)}


def empty_node(make_server, group, java):
    """A node with nothing in it, somebody who publishes to it, and how fast."""
    server = make_server(wrap=group.wrap, settings={"log": "info"})
    server.start()
    for topic in ("rate", "backlog"):
        java.admin(server.bootstrap, "create_topic", topic=topic, partitions=PARTITIONS)
    rate = Publisher(server.bootstrap, "rate")
    rate.publish(lambda published: published >= 64 * MIB)
    return server, rate, rate.rate()


def journal_bytes(server):
    total = 0
    for path in (server.data / "journal" / "0").glob("*.fj"):
        try:
            total += path.stat().st_size
        except FileNotFoundError:
            # Given up between the look at the directory and this one.
            continue
    return total


def read_fast(bootstrap, topic, seconds):
    """One consumer that reads what it asks for at once, from the beginning of a partition; MiB a second."""
    with Wire(bootstrap, timeout=30) as wire:
        offset, got, began = 0, 0, time.monotonic()
        while time.monotonic() - began < seconds:
            error, high, records = wire.fetch(topic, 0, offset, bytes_max=4 * MIB)
            assert error == 0
            got += len(records)
            offset += BATCH_RECORDS * len(split_batches(records))
            if offset >= high:
                offset = 0
        return got / MIB / seconds


@pytest.mark.timeout(600 + BACKLOG_BYTES // (10 * MIB))
def test_memory_is_bounded_whatever_the_backlog(group, make_server, java):
    server, rate, before = empty_node(make_server, group, java)
    backlog = Publisher(server.bootstrap, "backlog")
    backlog.publish(lambda published: published >= BACKLOG_BYTES)
    moving = rate.rate()
    # A backlog that is stored, as opposed to one that is still being moved.
    wait_until(lambda: journal_bytes(server) < 5 << 30, 600, lambda: f"{journal_bytes(server) >> 20} MiB of journal", every=1)
    own_before = group.own_bytes()
    slow = SlowConsumers(server.bootstrap, "backlog", ends_of(server.bootstrap, "backlog"))
    slow.start()
    samples = []
    try:
        loaded = rate.rate()
        samples.append(group.own_bytes())
        fast = read_fast(server.bootstrap, "backlog", 3)
        samples.append(group.own_bytes())
    finally:
        slow.stop()
    assert slow.read > 0
    assert server.alive() and group.kills() == 0
    shares = [line for line in server.said().splitlines() if "shares of memory" in line]
    server.kill9()
    # Once more: a disk that has written for minutes may be slower than it was, whoever writes.
    after = empty_node(make_server, group, java)[2]
    empty = (before + after) / 2
    print(f"publish rate: empty {before:.0f} and later {after:.0f} MiB/s; with a backlog of {BACKLOG_BYTES / MIB:.0f} MiB and {SLOW} slow consumers {loaded:.0f} MiB/s")
    print(f"while the backlog is moved into segments: {moving:.0f} MiB/s")
    print(f"a consumer that does read got {fast:.0f} MiB/s; the slow ones took {slow.read >> 10} KiB together")
    print(f"own memory: {own_before >> 20} MiB before, {max(samples) >> 20} MiB with slow consumers, of {MEMORY_BYTES >> 20} MiB")
    print("\n".join(shares))
    assert max(samples) <= MEMORY_BYTES * 8 // 10
    assert loaded >= 0.8 * empty, "a backlog and slow consumers cost publishers at most a fifth"
    # While the journal is far over its cap every byte is written a second time, into a segment.
    assert moving >= 0.5 * empty, "at most half goes to moving records into segments"
    assert fast > 1, "slow consumers do not starve one that reads"
