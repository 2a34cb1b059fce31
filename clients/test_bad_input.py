"""Hostile bytes on raw sockets: the server stays, good clients work, memory does not follow what was announced."""

import random
import socket
import struct
import threading
import time

import pytest
from peers.base import Record
from waiting import wait_until
from wire import FETCH, METADATA, PRODUCE, Closed, Wire, batch, produce_body, text

MIB = 1 << 20


@pytest.fixture
def still_good(node, java, fresh):
    """After the test: the server lives and a good client is served."""
    yield
    assert node.alive()
    topic = fresh()
    assert java.produce(node.bootstrap, topic, [Record(b"k", b"good")]) == [0]
    assert java.consume(node.bootstrap, {topic: 1})[topic][0].value == b"good"


def rss(node):
    return node.rss_bytes() if hasattr(node, "rss_bytes") else 0


def closed_or_answered(wire):
    """How the server took a frame: "closed", or the answer's body. Silence is neither and fails."""
    try:
        return wire.receive()[1]
    except Closed:
        return "closed"


def test_random_bytes(node, still_good, seed):
    chance = random.Random(seed)
    before = rss(node)
    for _ in range(300):
        with Wire(node.bootstrap) as wire:
            try:
                wire.socket.sendall(chance.randbytes(chance.randrange(1, 600)))
            except ConnectionError:
                pass
    assert rss(node) - before < 30 * MIB


def test_mutated_requests(node, still_good, seed, fresh):
    """Requests that were right, with a few bytes changed, cut or repeated."""
    chance = random.Random(seed)
    topic = fresh()
    good = [
        (PRODUCE, 7, produce_body(topic, batch([b"a", b"b"]))),
        (METADATA, 4, struct.pack(">i", 1) + text(topic) + b"\x01"),
        (FETCH, 4, struct.pack(">iiiib", -1, 0, 1, 1000, 0) + struct.pack(">i", 1) + text(topic) + struct.pack(">iiqi", 1, 0, 0, 1000)),
    ]
    before, waiting = rss(node), 0
    for _ in range(600):
        key, version, body = chance.choice(good)
        frame = bytearray(struct.pack(">hhi", key, version, 1) + text("fuzz") + body)
        for _ in range(chance.randrange(1, 5)):
            at = chance.randrange(len(frame))
            frame[at] = chance.choice([0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)])
        if chance.random() < 0.3:
            del frame[chance.randrange(8, len(frame)) :]
        with Wire(node.bootstrap) as wire:
            try:
                wire.send_frame(bytes(frame))
                wire.socket.shutdown(socket.SHUT_WR)
                wire.socket.settimeout(1)
                while wire.socket.recv(65536):
                    pass
            except ConnectionError:
                pass
            except TimeoutError:
                waiting += 1  # a fetch whose longest wait was changed into weeks
    assert rss(node) - before < 40 * MIB
    assert waiting < 30


@pytest.mark.parametrize("length", [-1, -(2**31), 2**31 - 1, 200 << 20, 0, 3])
def test_wrong_frame_lengths_close_the_connection(node, still_good, length):
    before = rss(node)
    with Wire(node.bootstrap) as wire:
        try:
            wire.socket.sendall(struct.pack(">i", length) + b"\0" * max(0, min(length, 64)))
            assert closed_or_answered(wire) == "closed"
        except ConnectionError:
            pass
    assert rss(node) - before < 10 * MIB


HUGE = struct.pack(">i", 2**31 - 1)
COUNTS = {
    "metadata topics": (METADATA, 1, HUGE),
    "metadata topics, small body": (METADATA, 4, struct.pack(">i", 100_000_000)),
    "produce topics": (PRODUCE, 7, text(None) + struct.pack(">hi", -1, 1000) + HUGE),
    "produce partitions": (PRODUCE, 7, text(None) + struct.pack(">hi", -1, 1000) + struct.pack(">i", 1) + text("t") + HUGE),
    "produce record bytes": (
        PRODUCE,
        7,
        text(None) + struct.pack(">hi", -1, 1000) + struct.pack(">i", 1) + text("t") + struct.pack(">ii", 1, 0) + HUGE,
    ),
    "fetch topics": (FETCH, 4, struct.pack(">iiiib", -1, 0, 1, 1000, 0) + HUGE),
    "negative count": (METADATA, 1, struct.pack(">i", -7)),
    "string beyond the end": (METADATA, 1, struct.pack(">i", 1) + b"\x7f\xff" + b"ab"),
    "bad text": (METADATA, 1, struct.pack(">i", 1) + b"\x00\x02\xff\xfe"),
    "bytes behind the end": (METADATA, 1, struct.pack(">i", 0) + b"left over"),
    "flexible with endless varint": (METADATA, 9, b"\x00" + b"\xff" * 20),
    "flexible with huge count": (METADATA, 9, b"\x00" + b"\xff\xff\xff\xff\x0f"),
    "nothing at all": (METADATA, 1, b""),
}


@pytest.mark.parametrize("what", COUNTS)
def test_counts_are_not_believed(node, still_good, what):
    """A count of two thousand million costs what its bytes cost; many connections do it at once."""
    key, version, body = COUNTS[what]
    before = rss(node)
    for _ in range(20):
        with Wire(node.bootstrap) as wire:
            try:
                wire.send(key, version, body)
                closed_or_answered(wire)
            except ConnectionError:
                pass
    assert rss(node) - before < 20 * MIB


def test_unknown_keys_and_versions(node, still_good):
    """ApiVersions of an unknown version is answered in version 0 with error 35; for the rest the connection ends."""
    with Wire(node.bootstrap) as wire:
        # tagged fields of the header, then name and version of the client's software as compact texts, then tagged fields
        body = wire.ask(18, 99, b"\x00" + b"\x05wire" + b"\x041.0" + b"\x00")
        assert struct.unpack_from(">h", body)[0] == 35
        assert struct.unpack_from(">i", body, 2)[0] > 0
        assert wire.api_versions(), "the same connection goes on"
    for key, version in [(999, 0), (-1, 0), (METADATA, 99), (METADATA, -1)]:
        with Wire(node.bootstrap) as wire:
            try:
                wire.send(key, version, b"\0" * 8)
                assert closed_or_answered(wire) == "closed", (key, version)
            except ConnectionError:
                pass


def test_truncated_requests_cost_nothing(node, still_good, fresh):
    """Half a request and a hang-up, many times over."""
    frame = struct.pack(">hhi", PRODUCE, 7, 1) + text("cut") + produce_body(fresh(), batch([b"x" * 1000]))
    before = rss(node)
    for cut in range(1, len(frame), 5):
        with Wire(node.bootstrap) as wire:
            wire.socket.sendall(struct.pack(">i", len(frame)) + frame[:cut])
    assert rss(node) - before < 20 * MIB


def test_a_slow_connection_harms_only_itself(node, still_good, java, fresh):
    """One connection gives a byte now and then; another is served meanwhile; the slow one's request is answered when it is whole."""
    topic = fresh()
    java.admin(node.bootstrap, "create_topic", topic=topic, partitions=1)
    with Wire(node.bootstrap, timeout=30) as slow, Wire(node.bootstrap) as quick:
        frame = struct.pack(">hhi", METADATA, 1, 7) + text("slow") + struct.pack(">i", 1) + text(topic)
        whole = struct.pack(">i", len(frame)) + frame
        worst = 0.0
        for index in range(len(whole)):
            slow.socket.sendall(whole[index : index + 1])
            began = time.monotonic()
            assert quick.produce(topic, batch([b"quick"]))[0] == 0
            worst = max(worst, time.monotonic() - began)
        assert slow.receive()[0] == 7
        assert worst < 2


def test_answers_that_nobody_reads_do_not_pile_up(node, still_good, java, fresh):
    """A connection asks for megabytes again and again and reads none: the server stops reading it."""
    topic = fresh()
    java.produce(node.bootstrap, topic, [Record(None, bytes(900_000))] * 8)
    before = rss(node)
    body = struct.pack(">iiiib", -1, 0, 1, 50 << 20, 0) + struct.pack(">i", 1) + text(topic) + struct.pack(">iiqi", 1, 0, 0, 50 << 20)
    with Wire(node.bootstrap) as greedy:
        greedy.socket.settimeout(1)
        try:
            for _ in range(2000):
                greedy.send(FETCH, 4, body)
        except (TimeoutError, ConnectionError):
            pass
        with Wire(node.bootstrap) as other:
            assert other.api_versions()
        assert rss(node) - before < 200 * MIB


def test_a_thousand_idle_connections_are_cheap(node, still_good):
    before = rss(node)
    wires = []
    try:
        for _ in range(1000):
            wires.append(Wire(node.bootstrap))
        for wire in wires[::10]:
            assert wire.api_versions()
        grown = rss(node) - before
        assert grown < 40 * MIB, grown
    finally:
        for wire in wires:
            wire.close()


def test_many_connections_at_once(node, still_good, fresh):
    """Two hundred connections opened and used by threads at the same moment."""
    faults = []

    def visit():
        try:
            with Wire(node.bootstrap, timeout=30) as wire:
                assert wire.api_versions()
        except Exception as failed:  # noqa: BLE001: told below
            faults.append(repr(failed))

    threads = [threading.Thread(target=visit) for _ in range(200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    wait_until(node.alive, 1)
