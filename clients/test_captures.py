"""Streams that store what others publish: `firth.captures`, with clients that know nothing of it."""

import confluent_kafka
import pytest
from confluent_kafka.admin import AdminClient, NewTopic
from waiting import wait_until


@pytest.fixture
def admin(node):
    return AdminClient({"bootstrap.servers": node.bootstrap})


def make(admin, name, partitions=1, **config):
    settings = {key.replace("_", "."): value for key, value in config.items()}
    admin.create_topics([NewTopic(name, num_partitions=partitions, config=settings)])[name].result(10)


def produce(node, topic, values, **config):
    producer = confluent_kafka.Producer({"bootstrap.servers": node.bootstrap, "linger.ms": 20, **config})
    failed = []
    for key, value, headers in values:
        producer.produce(topic, value, key=key, headers=headers, partition=0, callback=lambda error, _: error and failed.append(error))
    assert producer.flush(30) == 0 and not failed, failed


def read(node, topic, count):
    """(key, value, headers) of the first `count` records."""
    consumer = confluent_kafka.Consumer({"bootstrap.servers": node.bootstrap, "group.id": "none", "enable.auto.commit": False})
    consumer.assign([confluent_kafka.TopicPartition(topic, 0, 0)])
    got = []

    def enough():
        got.extend(consumer.consume(100, 0.2))
        return len(got) >= count

    wait_until(enough, 20, lambda: f"{len(got)} of {count} records in {topic}")
    consumer.close()
    assert not [message.error() for message in got if message.error()]
    return [(message.key(), message.value(), message.headers()) for message in got]


@pytest.mark.parametrize("codec", ["none", "zstd"])
def test_a_topic_stores_what_is_produced_under_its_filters(node, admin, fresh, codec):
    base = fresh("captured").replace("-", "")
    source, audit, other = f"{base}.eu", f"{base}audit", f"{base}.us"
    make(admin, source)
    make(admin, other)
    make(admin, audit, firth_captures=f"{base}/eu/#,nothing/here")
    values = [(f"k{number}".encode(), f"v{number}".encode(), [("h", b"1"), ("h", None)]) for number in range(50)]
    produce(node, source, values, **{"compression.type": codec, "enable.idempotence": True})
    produce(node, other, [(b"k", b"not captured", None)])
    produce(node, source, [(b"last", b"last", None)])
    assert [(key, value) for key, value, _ in read(node, source, 51)][:50] == [(key, value) for key, value, _ in values]
    captured = read(node, audit, 51)
    assert [(key, value) for key, value, _ in captured] == [(key, value) for key, value, _ in values] + [(b"last", b"last")]
    assert captured[0][2][:2] == [("h", b"1"), ("h", None)]
    assert ("firth-subject", f"{base}/eu".encode()) in captured[0][2]


def test_who_captures_does_not_refuse_the_producer_of_another(node, admin, fresh):
    base = fresh("narrow").replace("-", "")
    make(admin, base)
    make(admin, f"{base}-wide", firth_captures=base, max_message_bytes="1000")
    values = [(b"a", b"small", None), (b"b", b"small", None), (b"c", b"large" * 1000, None)]
    produce(node, base, values, retries=0)
    for topic in (base, f"{base}-wide"):
        assert [value for _, value, _ in read(node, topic, 3)] == [value for _, value, _ in values]


def test_a_record_names_its_subject_if_its_topic_captures_that(node, admin, fresh):
    base = fresh("named").replace("-", "")
    make(admin, base)
    make(admin, f"{base}-cellar", firth_captures=f"{base}/cellar/*")
    values = [
        (b"a", b"cellar", [("firth-subject", f"{base}/cellar/1".encode())]),
        (b"b", b"attic", [("firth-subject", f"{base}/attic/1".encode())]),
        (b"c", b"elsewhere", [("firth-subject", b"elsewhere/cellar/1")]),
        (b"d", b"cellar too", [("firth-subject", f"{base}/cellar/2".encode())]),
    ]
    produce(node, base, values)
    assert len(read(node, base, 4)) == 4
    assert [value for _, value, _ in read(node, f"{base}-cellar", 2)] == [b"cellar", b"cellar too"]


def test_captures_are_changed_and_shown(node, admin, fresh):
    base = fresh("changed").replace("-", "")
    make(admin, base)
    make(admin, f"{base}-copy")
    produce(node, base, [(b"k", b"before", None)])
    resource = confluent_kafka.admin.ConfigResource(confluent_kafka.admin.ConfigResource.Type.TOPIC, f"{base}-copy")
    entry = confluent_kafka.admin.ConfigEntry
    change = entry("firth.captures", f"{base}/#", incremental_operation=confluent_kafka.admin.AlterConfigOpType.SET)
    resource.add_incremental_config(change)
    admin.incremental_alter_configs([resource])[resource].result(10)
    produce(node, base, [(b"k", b"after", None)])
    assert [value for _, value, _ in read(node, f"{base}-copy", 1)] == [b"after"]
    shown = admin.describe_configs([resource])[resource].result(10)
    assert shown["firth.captures"].value == f"{base}/#"
    with pytest.raises(confluent_kafka.KafkaException, match="firth.captures"):
        make(admin, f"{base}-bad", firth_captures="a/>/b")
