"""Topics with `firth.retain=last`: their newest record of each subject comes to MQTT subscribers as a retained message."""

import time

import confluent_kafka
import paho.mqtt.client as paho
import pytest
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource
from server import MQTT_PEER_COMMAND, Server
from waiting import wait_until

from mqtt.link import Client
from mqtt.test_with_kafka import KEPT, Stream

# Whatever is published is soon moved into segments, and compacted.
EAGER = {"journal.extent_bytes": 4 << 20, "archive.after_ms": 300, "cache.tail_bytes": 1 << 20}
LAST = {"firth_retain": "last"}


@pytest.fixture
def server(tmp_path):
    if MQTT_PEER_COMMAND:
        pytest.skip("a broker of both protocols is needed")
    one = Server(tmp_path, mqtt=True)
    one.start()
    yield one
    said = one.said()
    one.stop()
    assert "panicked" not in said, said


def offered(server, subject, qos=1, level=5, options=0):
    """Topic to payload of what a new subscriber gets at once; all of it retained."""
    reader = Client(server.mqtt_address, level)
    reader.subscribe((subject, qos | options))
    came = [packet for packet in reader.settled() if packet.kind == "PUBLISH"]
    reader.drop()
    assert all(packet.retain for packet in came), came
    topics = [packet.topic for packet in came]
    assert len(topics) == len(set(topics)), topics
    return {packet.topic: packet.payload for packet in came}


def said_by(stream, *values):
    """Records that name their subjects, below the stream's own."""
    for below, value in values:
        stream.produce(value, headers=[("firth-subject", f"{stream.subject}/{below}".encode())])


def configure(stream, name, value):
    admin = AdminClient({"bootstrap.servers": stream.server.bootstrap})
    resource = ConfigResource(ConfigResource.Type.TOPIC, stream.name)
    resource.add_incremental_config(ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET))
    admin.incremental_alter_configs([resource])[resource].result(20)
    return admin.describe_configs([resource])[resource].result(20)[name].value


@pytest.mark.parametrize("version", [3, 5])
def test_paho_gets_the_last_values(server, version):
    stream = Stream(server, **LAST)
    stream.produce(b"of the topic")
    said_by(stream, ("a", b"1"), ("b", b"1"), ("a", b"2"))
    said_by(stream, ("c", b"1"), ("c", None))
    came = {}
    reader = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5 if version == 5 else paho.MQTTv311)
    reader.on_message = lambda _, __, message: came.setdefault(message.topic, []).append((message.payload, message.retain, message.qos))
    reader.on_connect = lambda *_: reader.subscribe(f"{stream.subject}/#", qos=2)
    reader.connect(*server.mqtt_address)
    reader.loop_start()
    wait_until(lambda: len(came) >= 3, 20, lambda: f"three subjects, had {came}")
    expected = {stream.subject: b"of the topic", f"{stream.subject}/a": b"2", f"{stream.subject}/b": b"1"}
    assert came == {topic: [(payload, True, 1)] for topic, payload in expected.items()}
    said_by(stream, ("a", b"3"))
    wait_until(lambda: len(came[f"{stream.subject}/a"]) == 2, 20, lambda: f"what is live, had {came}")
    assert came[f"{stream.subject}/a"][1] == (b"3", False, 1)
    reader.disconnect()
    reader.loop_stop()


def test_what_mqtt_publishes_is_offered(server):
    """Also what no retain flag came with, of every QoS; an empty message ends it."""
    stream = Stream(server, **LAST)
    writer = Client(server.mqtt_address, 5)
    topic = f"{stream.subject}/x"
    writer.publish(topic, b"plain", 1)
    assert offered(server, topic) == {topic: b"plain"}
    writer.publish(topic, b"once", 2)
    assert offered(server, topic) == {topic: b"once"}
    writer.publish(topic, b"fast", 0)
    writer.settled()
    assert offered(server, topic) == {topic: b"fast"}
    writer.publish(topic, b"", 1, retain=True)
    assert offered(server, topic) == {}
    plain = Stream(server)
    writer.publish(f"{plain.subject}/x", b"nobody keeps it", 1)
    assert offered(server, f"{plain.subject}/#") == {}


def test_retained_and_last_the_newer_wins(server):
    stream = Stream(server, **LAST)
    writer = Client(server.mqtt_address, 5)
    topic, other = f"{stream.subject}/x", f"{stream.subject}-elsewhere/y"
    writer.publish(topic, b"retained", 1, retain=True)
    writer.publish(other, b"in no stream", 1, retain=True)
    assert offered(server, f"{stream.subject}/#") == {topic: b"retained"}
    said_by(stream, ("x", b"of kafka"))
    assert offered(server, f"{stream.subject}/#") == {topic: b"of kafka"}
    assert offered(server, other) == {other: b"in no stream"}
    # The tombstone ends what the stream offers; the retained message is MQTT's to end.
    said_by(stream, ("x", None))
    assert offered(server, topic) == {topic: b"retained"}
    writer.publish(topic, b"again", 1, retain=True)
    assert offered(server, topic) == {topic: b"again"}
    writer.publish(topic, b"", 1, retain=True)
    assert offered(server, topic) == {}


def test_retain_handling_and_expiry(server):
    stream = Stream(server, **LAST)
    said_by(stream, ("a", b"1"))
    soon = str(int((time.time() + 3) * 1000)).encode()
    stream.produce(b"short", headers=[("firth-subject", f"{stream.subject}/b".encode()), ("expires-at", soon)])
    everything = {f"{stream.subject}/a": b"1", f"{stream.subject}/b": b"short"}
    subject = f"{stream.subject}/#"
    assert offered(server, subject) == everything
    assert offered(server, subject, options=0x20) == {}
    one = Client(server.mqtt_address, 5)
    for options, count in [(0x10, 2), (0x10, 0), (0x00, 2), (0x20, 0)]:
        one.subscribe((subject, options))
        assert len([packet for packet in one.settled() if packet.kind == "PUBLISH"]) == count, options
    wait_until(lambda: offered(server, subject) == {f"{stream.subject}/a": b"1"}, 20, lambda: f"its end, {offered(server, subject)}")


def test_a_kept_session_gets_each_once(server):
    stream = Stream(server, **LAST)
    said_by(stream, ("a", b"1"), ("b", b"1"))
    one = Client(server.mqtt_address, 5, client_id="kept", **KEPT)
    one.subscribe((f"{stream.subject}/#", 1))
    came = {one.receive().topic, one.receive().topic}
    assert came == {f"{stream.subject}/a", f"{stream.subject}/b"}
    said_by(stream, ("a", b"2"))
    packet = one.receive()
    assert (packet.payload, packet.retain) == (b"2", False)
    one.settled()


def test_it_is_switched_on_and_off(server):
    stream = Stream(server)
    said_by(stream, ("a", b"1"), ("b", b"1"), ("a", b"2"))
    subject = f"{stream.subject}/#"
    assert offered(server, subject) == {}
    assert configure(stream, "firth.retain", "last") == "last"
    everything = {f"{stream.subject}/a": b"2", f"{stream.subject}/b": b"1"}
    assert offered(server, subject) == everything
    with pytest.raises(confluent_kafka.KafkaException, match="firth.retain"):
        configure(stream, "firth.retain", "first")
    configure(stream, "firth.retain", "none")
    assert offered(server, subject) == {}
    configure(stream, "firth.retain", "last")
    assert offered(server, subject) == everything
    admin = AdminClient({"bootstrap.servers": server.bootstrap})
    admin.delete_topics([stream.name])[stream.name].result(20)
    assert offered(server, subject) == {}


def test_records_that_are_deleted_are_not_offered(server):
    stream = Stream(server, **LAST)
    said_by(stream, ("a", b"1"), ("b", b"1"))
    assert len(offered(server, f"{stream.subject}/#")) == 2
    admin = AdminClient({"bootstrap.servers": server.bootstrap})
    partition = confluent_kafka.TopicPartition(stream.name, 0, 1)
    admin.delete_records([partition])[partition].result(20)
    assert offered(server, f"{stream.subject}/#") == {f"{stream.subject}/b": b"1"}


@pytest.mark.parametrize("end", ["stop", "kill9"])
def test_last_values_survive_a_restart(server, end):
    stream = Stream(server, **LAST)
    off = Stream(server, **LAST)
    said_by(stream, ("a", b"1"), ("b", b"1"), ("c", b"1"))
    said_by(off, ("a", b"1"))
    subject = f"{stream.subject}/#"
    assert len(offered(server, subject)) == 3
    getattr(server, end)()
    server.start()
    assert offered(server, subject) == {f"{stream.subject}/{below}": b"1" for below in "abc"}
    said_by(stream, ("b", b"2"), ("c", None))
    configure(off, "firth.retain", "none")
    getattr(server, end)()
    server.start()
    assert offered(server, subject) == {f"{stream.subject}/a": b"1", f"{stream.subject}/b": b"2"}
    assert offered(server, f"{off.subject}/#") == {}


def test_last_values_of_what_was_moved_and_compacted(tmp_path):
    """20,000 records of 500 subjects, in a compacted topic whose records lie in segments by then; killed once a checkpoint may be there."""
    if MQTT_PEER_COMMAND:
        pytest.skip("a broker of both protocols is needed")
    server = Server(tmp_path, mqtt=True, settings=EAGER)
    server.start()
    stream = Stream(server, cleanup_policy="compact", min_cleanable_dirty_ratio="0.01", **LAST)
    producer = confluent_kafka.Producer({"bootstrap.servers": server.bootstrap, "linger.ms": 5, "compression.type": "lz4"})
    expected = {}
    for number in range(20_000):
        below = f"{number * 7919 % 500}"
        subject, value = f"{stream.subject}/{below}", None if number % 50 == 49 else b"%d %s" % (number, b"x" * 400)
        producer.produce(stream.name, value, key=below, headers=[("firth-subject", subject.encode())])
        expected[subject] = value
    assert producer.flush(60) == 0
    expected = {subject: value for subject, value in expected.items() if value is not None}
    subject = f"{stream.subject}/#"
    assert offered(server, subject, qos=0) == expected
    segments = server.data / "segments"
    wait_until(lambda: any(segments.rglob("*")), 60, lambda: f"segments in {list(server.data.iterdir())}")
    assert offered(server, subject, qos=0) == expected
    server.kill9()
    server.start()
    assert offered(server, subject, qos=0) == expected
    server.stop()
