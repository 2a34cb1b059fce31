"""The tools beside the server: backup of a busy node, restore elsewhere, and verify of what lies in segments."""

import random
import subprocess
import threading

import pytest
import server as servers
from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from waiting import wait_until

MIB = 1 << 20
PARTITIONS = 3


def tool(*arguments, fails=False):
    out = subprocess.run([servers.BINARY, *map(str, arguments)], capture_output=True, text=True, timeout=120)
    assert (out.returncode != 0) == fails, out.stdout + out.stderr
    return out.stdout + out.stderr


class Load(threading.Thread):
    """Publishes until it is stopped; remembers what was acknowledged, as (partition, offset) to value."""

    def __init__(self, bootstrap, topic, seed):
        super().__init__(daemon=True)
        self.producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True, "linger.ms": 2, "compression.type": "lz4"})
        self.topic, self.chance = topic, random.Random(seed)
        self.acknowledged, self.stopping = {}, threading.Event()

    def run(self):
        def done(error, message):
            if error is None:
                self.acknowledged[(message.partition(), message.offset())] = message.value()

        while not self.stopping.is_set():
            value = self.chance.randbytes(self.chance.randrange(100, 3000))
            try:
                self.producer.produce(self.topic, value=value, partition=self.chance.randrange(PARTITIONS), on_delivery=done)
            except BufferError:
                # The machine is slower than the loop.
                self.producer.poll(0.1)
            self.producer.poll(0.0005)
        self.producer.flush(30)

    def stop(self):
        self.stopping.set()
        self.join(60)


def read_all(bootstrap, topic):
    """Every record as (partition, offset) to value."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "reader", "enable.auto.commit": False, "check.crcs": True,
                         "enable.partition.eof": True})
    try:
        consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in range(PARTITIONS)])
        records, ended = {}, set()

        def poll():
            for message in consumer.consume(1000, 0.2):
                if message.error():
                    assert message.error().code() == -191, message.error()  # end of partition
                    ended.add(message.partition())
                else:
                    records[(message.partition(), message.offset())] = message.value()
            return len(ended) == PARTITIONS

        wait_until(poll, 60, lambda: f"ends of {topic}: {ended}", every=0)
        return records
    finally:
        consumer.close()


@pytest.fixture
def busy(real_binary, make_server, fresh, seed):
    """A node that moves journal into segments, under load, with a committed offset."""
    server = make_server(settings={"archive.after_ms": 300, "journal.extent_bytes": 4 * MIB, "cache.tail_bytes": MIB})
    server.start()
    topic = fresh()
    admin = AdminClient({"bootstrap.servers": server.bootstrap})
    for future in admin.create_topics([NewTopic(topic, PARTITIONS, config={"retention.ms": "86400000"})]).values():
        future.result(20)
    load = Load(server.bootstrap, topic, seed)
    load.start()
    wait_until(lambda: len(list((server.data / "segments").glob("seg.*"))) >= 2, 60, "segments")
    yield server, topic, load
    load.stop()


def commit(bootstrap, topic, offset):
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "workers", "enable.auto.commit": False})
    consumer.commit(offsets=[TopicPartition(topic, 0, offset)], asynchronous=False)
    consumer.close()


def test_a_backup_of_a_busy_node_is_the_node_at_one_moment(busy, make_server, tmp_path):
    server, topic, load = busy
    commit(server.bootstrap, topic, 17)
    before = dict(load.acknowledged)
    told = tool("backup", "--data", server.data, "--to", tmp_path / "copy")
    assert "backed up" in told
    load.stop()
    everything = load.acknowledged
    restored = make_server()
    tool("restore", "--from", tmp_path / "copy", "--data", restored.data)
    restored.start()
    records = read_all(restored.bootstrap, topic)
    assert not [place for place in before if records.get(place) != before[place]], "acknowledged before the backup and not in it"
    assert not [place for place in records if place in everything and records[place] != everything[place]]
    for partition in range(PARTITIONS):
        offsets = sorted(offset for where, offset in records if where == partition)
        assert offsets == list(range(len(offsets))), "not a prefix"
    consumer = Consumer({"bootstrap.servers": restored.bootstrap, "group.id": "workers"})
    assert consumer.committed([TopicPartition(topic, 0)], timeout=20)[0].offset == 17
    consumer.close()
    # The copy is a node of its own: it goes on.
    producer = Producer({"bootstrap.servers": restored.bootstrap})
    producer.produce(topic, value=b"more", partition=0)
    assert producer.flush(20) == 0
    assert restored.stop() == 0
    assert "sound" in tool("verify", "--data", restored.data)


def test_backups_refuse_what_they_cannot_do(busy, tmp_path):
    server, _, load = busy
    tool("backup", "--data", server.data, "--to", tmp_path / "copy")
    assert "not empty" in tool("backup", "--data", server.data, "--to", tmp_path / "copy", fails=True)
    assert "no data directory" in tool("backup", "--data", tmp_path / "nothing", "--to", tmp_path / "other", fails=True)
    assert "not empty" in tool("restore", "--from", tmp_path / "copy", "--data", server.data, fails=True)
    (extent, *_) = sorted((tmp_path / "copy" / "journal" / "0").glob("*.fj"))
    flip(extent, 5000)
    assert "is not what was backed up" in tool("restore", "--from", tmp_path / "copy", "--data", tmp_path / "fresh", fails=True)
    load.stop()


def flip(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def test_verify_reads_segments(busy):
    server, _, load = busy
    load.stop()
    assert server.stop() == 0
    assert "sound" in tool("verify", "--data", server.data)
    # Some may have been merged into others and be there still: nobody reads those.
    whole = {path: path.read_bytes() for path in (server.data / "segments").glob("seg.*")}
    for path in whole:
        flip(path, 5000)
    told = tool("verify", "--data", server.data, fails=True)
    assert "DAMAGED" in told and "checksum does not match; partition" in told, told
    for path, content in whole.items():
        path.write_bytes(content)
    assert "sound" in tool("verify", "--data", server.data)
