"""Compacted topics, records with a time to live, and topics bounded by count: what stays is what Apache Kafka's rules say."""

import random
import time

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType
from waiting import wait_until

MIB = 1 << 20


@pytest.fixture
def eager(real_binary, make_server):
    """A node that moves journal into segments at once."""

    def make(**more):
        settings = {"archive.after_ms": 300, "journal.extent_bytes": 4 * MIB, "cache.tail_bytes": MIB, **more}
        server = make_server(settings=settings)
        server.start()
        return server

    return make


def create(server, topic, **config):
    admin = AdminClient({"bootstrap.servers": server.bootstrap})
    topic = NewTopic(topic, 1, config={name.replace("_", "."): str(value) for name, value in config.items()})
    for future in admin.create_topics([topic]).values():
        future.result(20)


def read_all(server, topic):
    """Every record as (offset, key, value), from the beginning to the end."""
    consumer = Consumer({"bootstrap.servers": server.bootstrap, "group.id": "reader", "enable.auto.commit": False, "check.crcs": True,
                         "enable.partition.eof": True})
    try:
        consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
        records = []
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            message = consumer.poll(1)
            if message is None:
                continue
            if message.error():
                assert message.error().code() == -191, message.error()  # end of partition
                return records
            records.append((message.offset(), message.key(), message.value()))
        raise AssertionError(f"no end of {topic} after {len(records)} records")
    finally:
        consumer.close()


def keyed(chance, count, keys):
    """Records of few keys, one in ten of them a tombstone."""
    for _ in range(count):
        value = None if chance.random() < 0.1 else chance.randbytes(chance.randrange(20, 400))
        yield f"key-{chance.randrange(keys)}".encode(), value


def publish(server, topic, records, codec="none"):
    """Publishes in order; returns what was published as (offset, key, value)."""
    producer = Producer({"bootstrap.servers": server.bootstrap, "enable.idempotence": True, "compression.type": codec, "linger.ms": 5})
    placed = []

    def done(error, message):
        assert error is None, error
        placed.append((message.offset(), message.key(), message.value()))

    for key, value in records:
        producer.produce(topic, key=key, value=value, on_delivery=done)
        producer.poll(0)
    producer.flush(60)
    return sorted(placed, key=lambda record: record[0])


def newest(records):
    """What a fully compacted log keeps before tombstones may go."""
    latest = {}
    for record in records:
        latest[record[1]] = record
    return sorted(latest.values())


def test_a_compacted_topic_keeps_the_newest_of_each_key(eager, fresh, seed, java):
    server, topic = eager(), fresh()
    chance = random.Random(seed)
    create(server, topic, cleanup_policy="compact", min_cleanable_dirty_ratio=0)
    history = []
    for codec in ("none", "lz4", "zstd", "gzip", "snappy"):
        history += publish(server, topic, keyed(chance, 3000, 200), codec)
        expected = newest(history)
        wait_until(lambda: len(read_all(server, topic)) == len(expected), 60, lambda: f"{len(read_all(server, topic))} of {len(expected)} left")
        assert read_all(server, topic) == expected
    # Offsets go on, whatever is left of the log; and a restart changes nothing.
    server.kill9()
    server.start()
    assert read_all(server, topic) == newest(history)
    (last,) = publish(server, topic, [(b"key-0", b"last")])
    assert last[0] == len(history)
    expected = newest(history) + [last]
    got = java.consume(server.bootstrap, {topic: len(expected)})[topic]
    assert [record.value for record in got] == [value for _, _, value in expected]


def test_tombstones_go_after_their_time(eager, fresh, seed):
    server, topic = eager(), fresh()
    create(server, topic, cleanup_policy="compact", min_cleanable_dirty_ratio=0, delete_retention_ms=1500)
    publish(server, topic, [(b"a", b"1"), (b"b", b"1"), (b"a", None), (b"c", b"1")])
    wait_until(lambda: [key for _, key, _ in read_all(server, topic)] == [b"b", b"c"], 60, lambda: read_all(server, topic))


def test_records_expire_at_their_own_time(eager, fresh, peers, java):
    server, topic = eager(), fresh()
    create(server, topic)
    producer = Producer({"bootstrap.servers": server.bootstrap, "compression.type": "gzip", "linger.ms": 50})
    soon = str(int(time.time() * 1000) + 1500).encode()
    for index in range(30):
        headers = [("expires-at", soon)] if index % 3 else []
        producer.produce(topic, value=str(index).encode(), headers=headers)
    producer.flush(20)
    assert len(read_all(server, topic)) == 30
    stays = [(index, None, str(index).encode()) for index in range(0, 30, 3)]
    wait_until(lambda: read_all(server, topic) == stays, 20, lambda: read_all(server, topic))
    server.kill9()
    server.start()
    assert read_all(server, topic) == stays
    # Also a whole tail that is gone is stepped over.
    for index in range(5):
        producer.produce(topic, value=b"gone", headers=[("expires-at", b"1000")])
    producer.flush(20)
    wait_until(lambda: read_all(server, topic) == stays, 20, lambda: read_all(server, topic))
    for peer in (peers("kcat"), java, peers("kafka-python"), peers("kafkajs")):
        got = peer.consume(server.bootstrap, {topic: len(stays)})[topic]
        assert [record.value for record in got] == [value for _, _, value in stays], peer


def test_a_topic_is_bounded_by_count(eager, fresh):
    server, topic = eager(), fresh()
    create(server, topic)
    resource = ConfigResource(ResourceType.TOPIC, topic, set_config={"firth.retention.records": "100"})
    admin = AdminClient({"bootstrap.servers": server.bootstrap})
    for future in admin.alter_configs([resource]).values():
        future.result(20)
    publish(server, topic, [(None, str(index).encode()) for index in range(1000)])
    wait_until(lambda: [offset for offset, _, _ in read_all(server, topic)] == list(range(900, 1000)), 30)
