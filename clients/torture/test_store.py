"""A store of many small segments: it starts quickly after kill -9, gives old records at a disk's rate, and readers at the end hardly notice.

`FIRTH_STORE_GIB` says how much is stored (1 by default; the full drill is 10 and takes about that many gigabytes of disk).
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections import deque
from pathlib import Path

import pytest
from wire import PRODUCE, Wire, batch, produce_answer, produce_body
from waiting import wait_until

MIB = 1 << 20
STORE_BYTES = int(float(os.environ.get("FIRTH_STORE_GIB", "1")) * (1 << 30))
SECONDS = int(os.environ.get("FIRTH_STORE_SECONDS", "10"))
JOURNAL_BYTES = 128 * MIB
LARGE, MANY = 3, 1000
ROUNDS = 5
RATE = 1000
IN_FLIGHT = 8
SETTINGS = {
    "log": "info",
    "journal.extent_bytes": 16 * MIB,
    "journal.bytes_max": JOURNAL_BYTES,
    "archive.after_ms": 2000,
    "archive.segment_bytes": 8 * MIB,
    "cache.tail_bytes": 16 * MIB,
}


def fill(bootstrap, bytes_all):
    """Four fifths to a few large partitions, the rest over many."""
    large, small = (batch([os.urandom(1024) for _ in range(count)]) for count in (500, 100))
    waiting, sent, turn = deque(), 0, 0
    with Wire(bootstrap, timeout=120) as wire:

        def take():
            correlation, answer = wire.receive()
            assert correlation == waiting.popleft()
            error = produce_answer(answer)[0]
            assert error == 0, error

        while sent < bytes_all:
            name, payload, partitions = ("many", small, MANY) if turn % 3 == 2 else ("large", large, LARGE)
            waiting.append(wire.send(PRODUCE, 7, produce_body(name, payload, turn // 3 % partitions)))
            sent += len(payload)
            turn += 1
            if len(waiting) >= IN_FLIGHT:
                take()
        while waiting:
            take()


def reading(what, bootstrap, topic, *numbers, nice=0):
    command = ["nice", "-n", str(nice), sys.executable, str(Path(__file__).parent / "reading.py"), what, bootstrap, topic]
    return subprocess.Popen(command + [str(number) for number in numbers], stdout=subprocess.PIPE, text=True)


def outcome(process):
    said, _ = process.communicate(timeout=120 + 2 * SECONDS)
    assert process.returncode == 0
    return json.loads(said)


def segments(server):
    # A name without a dot at its end is whole, and made once: names begin with the time.
    return sorted(path for path in (server.data / "segments").glob("seg.*") if path.suffix != ".tmp")


def size_of(paths):
    total = 0
    for path in paths:
        try:
            total += path.stat().st_size
        except FileNotFoundError:
            pass
    return total


def out_of_memory(server):
    """Takes the node's files out of the page cache, as far as they are written."""
    os.sync()
    for path in server.data.rglob("*"):
        if path.is_file():
            with open(path, "rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def disk_rate(server, bytes_max):
    """MiB a second of segments read one after the other in large pieces."""
    out_of_memory(server)
    buffer = bytearray(MIB)
    got, began = 0, time.monotonic()
    for path in segments(server):
        with open(path, "rb", buffering=0) as file:
            while count := file.readinto(buffer):
                got += count
        if got >= bytes_max:
            break
    return got / MIB / (time.monotonic() - began)


def catch_up(server, partition, bytes_max):
    out_of_memory(server)
    read = outcome(reading("catch-up", server.bootstrap, "large", partition, SECONDS, bytes_max))
    return read["bytes"] / MIB / read["seconds"], read


def tail(server):
    return reading("tail", server.bootstrap, "tail", RATE, SECONDS)


def describe(name, measured):
    parts = [f"{what} p50 {one['p50']:.2f} p99 {one['p99']:.2f} max {one['max']:.1f} ms" for what, one in measured.items()]
    print(f"tail {name}: {'; '.join(parts)}")


@pytest.mark.timeout(900 + STORE_BYTES // (5 * MIB))
def test_a_large_store_is_quick(make_server, java, real_binary):
    server = make_server(settings=SETTINGS)
    server.start()
    for topic, partitions in (("large", LARGE), ("many", MANY), ("tail", 1)):
        java.admin(server.bootstrap, "create_topic", topic=topic, partitions=partitions)
    describe("on an empty node", outcome(tail(server)))
    began = time.monotonic()
    fill(server.bootstrap, STORE_BYTES)
    print(f"filled with {STORE_BYTES / MIB:.0f} MiB at {STORE_BYTES / MIB / (time.monotonic() - began):.0f} MiB/s")
    describe("while segments are made", outcome(tail(server)))
    moved = STORE_BYTES - 2 * JOURNAL_BYTES
    wait_until(lambda: size_of(segments(server)) >= moved, 300, lambda: f"{size_of(segments(server))} of {moved} bytes moved", every=0.5)
    print(f"{len(segments(server))} segments with {size_of(segments(server)) / MIB:.0f} MiB after {time.monotonic() - began:.0f} s")

    server.kill9()
    out_of_memory(server)
    start = server.start()
    print(f"start after kill -9: {start:.2f} s")

    disk = disk_rate(server, 2 << 30)
    rate, read = catch_up(server, 0, 8 * MIB)
    small, _ = catch_up(server, 1, MIB)
    again = disk_rate(server, 2 << 30)
    disk = (disk + again) / 2
    print(f"disk {disk:.0f} MiB/s; catch-up {rate:.0f} MiB/s ({rate / disk:.0%}) with 8 MiB a fetch, {small:.0f} ({small / disk:.0%}) with 1 MiB")

    quiet, busy = [], []
    for turn in range(ROUNDS):
        quiet.append(outcome(tail(server)))
        out_of_memory(server)
        beside = tail(server)
        # The reader steps back, so that what is measured is the node and not the tail's own client waiting for a processor.
        read = reading("catch-up", server.bootstrap, "large", turn % LARGE, SECONDS, 8 * MIB, nice=10)
        busy.append(outcome(beside))
        read = outcome(read)
        describe("alone", quiet[-1])
        describe(f"beside a catch-up of {read['bytes'] / MIB / read['seconds']:.0f} MiB/s", busy[-1])
    alone, beside = (statistics.median(one["end_to_end"]["p99"] for one in measured) for measured in (quiet, busy))
    print(f"tail p99, medians of {ROUNDS}: {alone:.2f} ms alone, {beside:.2f} ms beside a catch-up ({beside / alone:.2f} times)")
    assert start < 3
    assert rate >= 0.6 * disk
    assert beside <= 2 * alone
