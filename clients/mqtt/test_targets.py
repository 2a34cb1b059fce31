"""A message that several streams capture lies in the journal once; each of them serves it as its own, wherever it lies."""

import re
import subprocess

import confluent_kafka
import server as servers
from confluent_kafka.admin import AdminClient, NewTopic
from waiting import wait_until

from mqtt.link import Client

EAGER = {"journal.extent_bytes": 4 << 20, "archive.after_ms": 300, "cache.tail_bytes": 1 << 20}
KEPT = {"clean": False, "props": {"session_expiry": 3600}}
MESSAGES, BYTES, ALONE = 3000, 4000, 7
TOPICS = {"line": ALONE, "audit": 0}


def shared(server):
    """Two topics and two sessions, which all store what is published at `line/shared/1`."""
    admin = AdminClient({"bootstrap.servers": server.bootstrap})
    audit = NewTopic("audit", 1, config={"firth.captures": "line/shared/#"})
    for made in admin.create_topics([NewTopic("line", 1), audit]).values():
        made.result(20)
    for name in ("first", "second"):
        session = Client(server.mqtt_address, client_id=name, **KEPT)
        session.subscribe(("line/shared/#", 1))
        session.disconnect()


def payload(number):
    return f"{number} ".encode().ljust(BYTES, b"x")


def read_all(server, topic):
    consumer = confluent_kafka.Consumer(
        {"bootstrap.servers": server.bootstrap, "group.id": "none", "enable.auto.commit": False, "check.crcs": True}
    )
    consumer.assign([confluent_kafka.TopicPartition(topic, 0, 0)])
    records, wanted = [], TOPICS[topic] + MESSAGES

    def enough():
        records.extend(consumer.consume(500, 0.2))
        return len(records) >= wanted

    wait_until(enough, 30, lambda: f"{len(records)} of {wanted} records of {topic}")
    consumer.close()
    assert not [record.error() for record in records if record.error()]
    assert [record.offset() for record in records] == list(range(wanted))
    return [record.value() for record in records[TOPICS[topic]:]]


def is_served(server, session):
    for topic in TOPICS:
        assert read_all(server, topic) == [payload(number) for number in range(MESSAGES)], topic
    client = Client(server.mqtt_address, client_id=session, **KEPT)
    assert client.payloads(MESSAGES) == [payload(number) for number in range(MESSAGES)]
    fresh = Client(server.mqtt_address)
    fresh.subscribe(("line/#", 1))
    assert fresh.payloads(1) == [payload(MESSAGES - 1)]
    client.drop()
    fresh.drop()


def test_every_stream_serves_what_it_shares(make_server):
    server = make_server(settings=EAGER, mqtt=True)
    server.start()
    shared(server)
    publisher = Client(server.mqtt_address)
    # So that the streams give the messages that they share offsets of their own.
    for number in range(ALONE):
        publisher.publish("line/alone", b"alone", qos=1)
    for number in range(MESSAGES):
        publisher.publish("line/shared/1", payload(number), qos=1, retain=number == MESSAGES - 1)
    publisher.drop()
    is_served(server, "first")
    segments = server.data / "segments"
    wait_until(lambda: len(list(segments.glob("seg.*"))) >= 2, 60, "segments")
    server.kill9()
    server.start()
    is_served(server, "second")
    assert server.stop() == 0


def test_the_journal_holds_it_once(make_server):
    large, messages = 60_000, 40
    server = make_server(settings={"journal.extent_bytes": 16 << 20}, mqtt=True)
    server.start()
    shared(server)
    publisher = Client(server.mqtt_address)
    for _ in range(messages):
        publisher.publish("line/shared/1", b"x" * large, qos=1, retain=True)
    publisher.drop()
    assert server.stop() == 0
    told = subprocess.run([servers.BINARY, "verify", "--data", server.data], capture_output=True, text=True, timeout=60).stdout
    held = int(re.search(r"entries, (\d+) bytes", told)[1])
    # Two topics, a filter stream and the retained one; groups are filled up to blocks of 4 KiB.
    assert messages * large < held < messages * (large + 8192) + (1 << 19), told
