"""Every client reads what every other wrote, in every codec both have."""

import time

import pytest
from conftest import PEERS
from peers.base import Record

BASE_MS = 1_700_000_000_000


def records_for(peer, codec):
    """Records that use all that the client can express: nulls, empty texts, repeated header names, own timestamps, long values."""
    origin = f"{peer.name}/{codec}".encode()
    records = [
        Record(b"key-1", b"first by " + origin, [("kind", b"plain")]),
        Record(None, b"no key"),
        Record(b"gone", None, [("tombstone", b"yes")]),
        Record(b"key-1", b"repeated headers", [("tag", b"one"), ("tag", b"two"), ("other", b"x"), ("tag", b"three")]),
        Record("schlüssel".encode(), "größe ☃".encode(), [("unicode", "ü".encode())]),
        Record(b"long", b"abcdefghij" * 20_000),
    ]
    if "binary" not in peer.lacks:
        records.append(Record(b"\x00\xff\xfe", bytes(range(256)), [("bytes", b"\x00\x80\xff")]))
        records.append(Record(b"", b"", [("empty", b"")]))
    if "null header values" not in peer.lacks:
        records.append(Record(b"key-2", b"null header", [("nothing", None)]))
    if "timestamps" not in peer.lacks:
        for index, record in enumerate(records):
            record.timestamp = BASE_MS + index
    return records


@pytest.fixture(scope="module")
def written(node, peers):
    """Topic by (writer, codec), written once; the reader tests all read the same."""
    topics = {}
    stamp = f"{time.time_ns():x}"
    for name in PEERS:
        try:
            peer = peers(name)
        except pytest.skip.Exception:
            continue  # test_every_client_was_had says so
        for codec in peer.codecs:
            topic = f"matrix-{name}-{codec}-{stamp}"
            records = records_for(peer, codec)
            offsets = peer.produce(node.bootstrap, topic, records, codec)
            assert offsets in ([None] * len(records), list(range(len(records)))), f"{name} {codec}: {offsets}"
            topics[name, codec] = (topic, records)
    return topics


@pytest.mark.parametrize("reader", PEERS)
def test_reads_what_all_wrote(node, peers, written, reader):
    peer = peers(reader)
    began = time.time_ns() // 1_000_000

    # kcat prints JSON texts, so what is not text cannot come out of it whole
    def readable(record):
        if "binary" not in peer.lacks:
            return True
        try:
            for part in (record.key, record.value, *(value for _, value in record.headers)):
                (part or b"").decode()
        except UnicodeDecodeError:
            return False
        return True

    wanted = {topic: len(records) for topic, records in written.values()}
    got = peer.consume(node.bootstrap, wanted, timeout=20)
    for (writer, codec), (topic, records) in written.items():
        where = f"{reader} reading {writer} with {codec}"
        assert [record.offset for record in got[topic]] == list(range(len(records))), where
        for wrote, read in zip(records, got[topic]):
            if readable(wrote):
                assert comparable(read, peer) == comparable(wrote, peer), where
            if wrote.timestamp is not None:
                assert read.timestamp == wrote.timestamp, where
            else:
                assert began - 600_000 < read.timestamp < began + 600_000, where


def comparable(record, peer):
    key, value, headers = record.payload()
    if "binary" in peer.lacks:
        # kcat shows an empty key or value as null
        key, value = key or None, value or None
        headers = {name: [one or None for one in values] for name, values in headers.items()}
    return key, value, headers


@pytest.mark.parametrize("name", PEERS)
def test_client_was_had(peers, name):
    """A client that could not be had shows as a skip of this test with the reason, never as silence."""
    assert peers(name).name == name
