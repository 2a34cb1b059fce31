"""kill -9 of the server at random, and clients that lose their connections: QoS 1 at least once, QoS 2 exactly once, in order."""

import os
import random
import time

import confluent_kafka
import pytest
from confluent_kafka.admin import AdminClient, NewTopic
from server import MQTT_PEER_COMMAND
from waiting import wait_until

from mqtt import packets
from mqtt.faithful import Publisher, Subscriber
from mqtt.link import Late
from mqtt.marks import differs, v3, v5
from mqtt.verdict import judge, missing

KILLS = int(os.environ.get("FIRTH_MQTT_KILLS", "30"))
SMALL = {"journal.extent_bytes": 4 << 20}
IDLE_SECONDS = 10  # nothing new to any subscriber for so long: what is missing does not come


@differs("mosquitto", "sends QoS 0 past QoS 1 that waits for the client's window")
@v5("4.6.0-5")
@v3("4.6.0-6")
def test_order_across_qos_0_and_1(client, level, topic, name):
    """One publisher, a persistent subscriber that is connected: as it was sent, whatever the QoS of each message."""
    one = client(level, client_id=name, clean=False, props={"session_expiry": 60})
    one.subscribe((topic, 1))
    publisher, count, window, unacknowledged = client(level), 600, 10, 0
    for number in range(count):
        qos = (0, 1, 0, 0, 1, 1)[number % 6]
        packet_id = number + 1 if qos else None
        publisher.send(packets.publish(topic, b"%d" % number, qos, packet_id, level=level))
        unacknowledged += qos
        while unacknowledged >= window:
            publisher.next("PUBACK")
            unacknowledged -= 1
    came = [int(one.receive().payload) for _ in range(count)]
    assert came == list(range(count))


def granted_by(subscriber):
    """The highest QoS among the filters that take a stream; a stream is published to <kind>/<publisher>/<qos>."""

    def granted(stream):
        subject = f"{subscriber.root}/{stream.kind}/{stream.name}/{stream.qos}".split("/")
        fits = [qos for name, qos in subscriber.filters if takes(name.split("/"), subject)]
        return max(fits, default=None)

    return granted


def takes(levels, subject):
    for at, level in enumerate(levels):
        if level == "#":
            return True
        if at >= len(subject) or level not in ("+", subject[at]):
            return False
    return len(levels) == len(subject)


def read_topic(bootstrap, topic):
    """Every payload in the topic, in order, by a Kafka client."""
    consumer = confluent_kafka.Consumer(
        {"bootstrap.servers": bootstrap, "group.id": "none", "enable.auto.commit": False, "enable.partition.eof": True}
    )
    consumer.assign([confluent_kafka.TopicPartition(topic, 0, 0)])
    came, deadline = [], time.monotonic() + 30
    while time.monotonic() < deadline:
        for message in consumer.consume(1000, 1):
            if message.error():
                assert message.error().code() == confluent_kafka.KafkaError._PARTITION_EOF, message.error()
                consumer.close()
                return came
            came.append(message.value())
    raise Late(f"no end of {topic} after {len(came)} records")


def make_clients(server, root, chance):
    """Publishers to a subject that a topic stores and to one that none does; sessions with one filter, several, overlapping ones."""
    address = server.mqtt_address

    def own():
        return random.Random(chance.random())

    def publisher(name, kind, level, qoses, **options):
        one = Publisher(address, name, level, own(), f"{root}/{kind}/{name}", qoses, **options)
        for stream in one.streams:
            stream.kind = kind
        return one

    def subscriber(name, level, filters, **options):
        one = Subscriber(address, name, level, own(), [(f"{root}/{end}", qos) for end, qos in filters], **options)
        one.root = root
        return one

    publishers = [
        publisher("p0", "stored", 5, (1, 2), drops=0.003),
        publisher("p1", "stored", 4, (2,)),
        publisher("p2", "free", 5, (2,), drops=0.003),
        publisher("p3", "free", 4, (1, 2), drops=0.003),
        publisher("p4", "free", 5, (1,), persistent=False, drops=0.003),
    ]
    subscribers = [
        subscriber("s0", 5, [("#", 2)], drops=0.002),
        subscriber("s1", 4, [("#", 2)], patience=8),
        subscriber("s2", 4, [("#", 1)], drops=0.002, patience=4),
        subscriber("s3", 5, [("#", 1), ("+/+/2", 2), ("free/p3/#", 2)], drops=0.002, patience=3, receive_maximum=5),
        subscriber("s4", 5, [("stored/p0/2", 2), ("free/p3/1", 2)], receive_maximum=1),
    ]
    return publishers, subscribers


@differs("mosquitto", "saves sessions now and then, and delivers for each of the overlapping filters")
@pytest.mark.timeout(120 + 8 * KILLS)
def test_kill_minus_nine_at_random(own_broker, topic, seed):
    chance, root, server = random.Random(seed), topic, own_broker(settings=SMALL)
    if not MQTT_PEER_COMMAND:
        admin = AdminClient({"bootstrap.servers": server.bootstrap, "log_level": 0})
        admin.create_topics([NewTopic(f"{root}.stored", num_partitions=1)])[f"{root}.stored"].result(20)
    publishers, subscribers = make_clients(server, root, chance)
    streams = [stream for one in publishers for stream in one.streams]

    def healthy():
        for one in publishers + subscribers:
            assert one.failure is None, f"{one.name}: {one.failure!r}"
        return True

    for one in subscribers:
        one.start()
    wait_until(lambda: healthy() and all(one.subscribed.is_set() for one in subscribers), 30, "subscribed")
    for one in publishers:
        one.start()

    def acked():
        return [len(stream.acked) for stream in streams]

    began, slowest = time.monotonic(), 0.0
    for _ in range(KILLS):
        before = sum(acked())
        wait_until(lambda: healthy() and sum(acked()) > before, 40, "publishers go on after a restart")
        time.sleep(chance.uniform(0, 0.8))
        server.kill9()
        slowest = max(slowest, server.start())
    before = acked()
    wait_until(lambda: healthy() and all(now > then for now, then in zip(acked(), before, strict=True)), 40, "every publisher goes on")
    took = time.monotonic() - began
    for one in publishers:
        one.enough.set()
    wait_until(lambda: healthy() and all(one.ended for one in publishers), 40, "all is acknowledged")
    faults, repeats = [], {}
    lacking, deadline = None, time.monotonic() + IDLE_SECONDS
    while lacking != 0 and time.monotonic() < deadline and healthy():
        before, lacking = lacking, sum(missing(granted_by(one), streams, one.came) for one in subscribers)
        deadline = deadline if lacking == before else time.monotonic() + IDLE_SECONDS
        time.sleep(0.2 if lacking else 0)
    for one in subscribers:
        one.enough.set()
    wait_until(lambda: healthy() and all(one.ended for one in subscribers), 40, "subscribers end")
    for one in subscribers:
        found, repeats[one.name] = judge(one.name, granted_by(one), streams, one.came)
        faults += found
    if not MQTT_PEER_COMMAND:
        stored = read_topic(server.bootstrap, f"{root}.stored")
        found, repeats["topic"] = judge("topic", lambda stream: 2 if stream.kind == "stored" else None, streams, stored)
        faults += found
    for one in publishers + subscribers:
        faults += one.faults
    connections = {one.name: one.connections for one in publishers + subscribers}
    counts = {stream.key: len(stream.acked) for stream in streams}
    print(f"{KILLS} kills in {took:.0f} s, slowest start {slowest:.2f} s, connections {connections}")
    print(f"acknowledged {counts}, repeats at QoS 1 {repeats}")
    assert not faults, "\n".join(faults[:20])
    assert all(count > KILLS for count in counts.values()), counts
    server.stop()
    assert "panicked" not in server.said(), server.said()
