"""One log, two protocols: what Kafka or MQTT publishes, Kafka and MQTT receive, with all that belongs to it."""

import time
import uuid

import confluent_kafka
import pytest
from confluent_kafka.admin import AdminClient, NewTopic
from waiting import wait_until

from mqtt.link import Client

KEPT = {"clean": False, "props": {"session_expiry": 3600}}
SMALL = {"journal.extent_bytes": 4 << 20}
EXPIRY_S = 1000
CLOCKS_MS = 1000  # the node's clock runs with a steady one and is only drawn towards the system's
USER = [("tag", "one"), ("other", "größe"), ("tag", "two"), ("empty", "")]
PAYLOAD = "größe ☃".encode()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    import server as servers

    if servers.MQTT_PEER_COMMAND:
        pytest.skip("a broker of both protocols is needed")
    one = servers.Server(tmp_path_factory.mktemp("both"), mqtt=True)
    one.start()
    yield one
    said = one.said()
    one.stop()
    assert "panicked" not in said, said


class Stream:
    """A Kafka topic `name`, which stores what MQTT publishes at `subject` and below."""

    def __init__(self, server, **config):
        self.server = server
        base = f"m{uuid.uuid4().hex[:10]}"
        self.name, self.subject = f"{base}.eu", f"{base}/eu"
        admin = AdminClient({"bootstrap.servers": server.bootstrap})
        settings = {key.replace("_", "."): value for key, value in config.items()}
        admin.create_topics([NewTopic(self.name, num_partitions=1, config=settings)])[self.name].result(20)
        self.taken = 0

    def produce(self, value, key=None, headers=None, timestamp=0):
        producer = confluent_kafka.Producer({"bootstrap.servers": self.server.bootstrap, "acks": "all"})
        failed = []
        producer.produce(
            self.name, value, key=key, headers=headers, timestamp=timestamp, callback=lambda error, _: error and failed.append(error)
        )
        assert producer.flush(20) == 0 and not failed, failed

    def records(self, count):
        """The next `count` records, read by a Kafka client."""
        consumer = confluent_kafka.Consumer(
            {"bootstrap.servers": self.server.bootstrap, "group.id": "none", "enable.auto.commit": False}
        )
        consumer.assign([confluent_kafka.TopicPartition(self.name, 0, self.taken)])
        came = []

        def enough():
            came.extend(consumer.consume(count - len(came), 0.2))
            return len(came) >= count

        wait_until(enough, 20, lambda: f"{len(came)} of {count} records in {self.name}")
        consumer.close()
        assert not [message.error() for message in came if message.error()]
        self.taken += count
        return came


@pytest.fixture
def stream(server):
    return Stream(server)


class Readers:
    """Subscribers of each kind: live at QoS 0 and 1, a session that is connected, one that is away; 3.1.1 and 5.0."""

    def __init__(self, server, filters):
        self.server = server
        self.live = {}
        self.away = {}
        for level in (4, 5):
            for qos in (0, 1, 2):
                self.live[f"live {level} {qos}"] = self.subscribed(Client(server.mqtt_address, level), filters, qos)
            self.live[f"session {level}"] = self.subscribed(self.session(level, uuid.uuid4().hex), filters, 1)
            name = uuid.uuid4().hex
            self.away[f"away {level}"] = (level, name)
            self.subscribed(self.session(level, name), filters, 1).disconnect()

    def session(self, level, name):
        return Client(self.server.mqtt_address, level, client_id=name, **KEPT)

    @staticmethod
    def subscribed(client, filters, qos):
        client.subscribe(*[(one, qos) for one in filters])
        return client

    def receive(self, count):
        """By the name of each reader: its level, its granted QoS and the packets."""
        out = {name: (client.level, [client.receive() for _ in range(count)]) for name, client in self.live.items()}
        for name, (level, client_id) in self.away.items():
            client = self.session(level, client_id)
            assert client.connack.session_present
            out[name] = (level, [client.receive() for _ in range(count)])
        return out


def headers_of(record):
    """Without those that are Firth's own."""
    return [(name, value) for name, value in record.headers() or [] if not name.startswith("firth-")]


def own_of(record):
    return dict((name, value) for name, value in record.headers() or [] if name.startswith("firth-"))


def whole_props(subject):
    return {
        "payload_format": 1,
        "message_expiry": EXPIRY_S,
        "content_type": "text/plain; charset=utf-8",
        "response_topic": f"{subject}/answers/here",
        "correlation_data": b"\x00\xffwhich",
        "user": USER,
    }


def granted(reader):
    """QoS of a reader, by its name."""
    return int(reader[-1]) if reader.startswith("live") else 1


def assert_whole(packet, level, subject, payload=PAYLOAD):
    assert (packet.topic, packet.payload) == (subject, payload), packet
    assert packet.retain is False
    if level == 4:
        return
    props = dict(packet.props)
    assert EXPIRY_S - 30 <= props.pop("message_expiry") <= EXPIRY_S, packet
    wanted = whole_props(subject)
    del wanted["message_expiry"]
    assert props == wanted


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("key", [None, "of its own"])
def test_mqtt_to_both(server, stream, qos, key):
    subject = f"{stream.subject}/berlin/7"
    readers = Readers(server, [f"{stream.subject}/#"])
    if qos == 0:
        readers.away = {}  # QoS 0 is not kept for who is away
    props = whole_props(subject)
    if key:
        props["user"] = [*USER, ("firth-key", key)]
    began = time.time_ns() // 1_000_000 - CLOCKS_MS
    Client(server.mqtt_address, 5).publish(subject, PAYLOAD, qos, props=props)
    (record,) = stream.records(1)
    ended = time.time_ns() // 1_000_000 + CLOCKS_MS
    assert record.value() == PAYLOAD
    assert record.key() == (key or subject).encode()
    kind, stamp = record.timestamp()
    assert kind != confluent_kafka.TIMESTAMP_NOT_AVAILABLE and began <= stamp <= ended, (began, stamp, ended)
    headers = dict(headers_of(record))
    assert headers["content-type"] == b"text/plain; charset=utf-8"
    assert headers["reply-to"] == f"{subject}/answers/here".encode()
    assert headers["correlation-id"] == b"\x00\xffwhich"
    assert headers["payload-format"] == b"utf-8"
    assert began + EXPIRY_S * 1000 <= int(headers["expires-at"]) <= ended + EXPIRY_S * 1000
    assert own_of(record)["firth-subject"] == subject.encode()
    known = {"content-type", "reply-to", "correlation-id", "payload-format", "expires-at"}
    assert [pair for pair in headers_of(record) if pair[0] not in known] == [(name, value.encode()) for name, value in USER]
    for name, (level, (packet,)) in readers.receive(1).items():
        assert_whole(packet, level, subject)
        assert packet.qos == min(qos, granted(name)), name


def kafka_headers(subject, now_ms):
    return [
        ("content-type", b"text/plain; charset=utf-8"),
        ("reply-to", f"{subject}/answers/here".encode()),
        ("correlation-id", b"\x00\xffwhich"),
        ("payload-format", b"utf-8"),
        ("expires-at", str(now_ms + EXPIRY_S * 1000).encode()),
        *[(name, value.encode()) for name, value in USER],
    ]


@pytest.mark.parametrize("named", [False, True])
def test_kafka_to_both(server, stream, named):
    """By the subject of the topic, or by the one that the record names."""
    subject = f"{stream.subject}/munich/8" if named else stream.subject
    readers = Readers(server, [subject])
    now = time.time_ns() // 1_000_000
    headers = kafka_headers(subject, now) + ([("firth-subject", subject.encode())] if named else [])
    stream.produce(PAYLOAD, key=b"\x00key", headers=headers, timestamp=now - 5000)
    (record,) = stream.records(1)
    assert (record.value(), record.key(), record.headers()) == (PAYLOAD, b"\x00key", headers)
    assert record.timestamp() == (confluent_kafka.TIMESTAMP_CREATE_TIME, now - 5000)
    for name, (level, (packet,)) in readers.receive(1).items():
        assert_whole(packet, level, subject)
        assert packet.qos == min(1, granted(name)), name


def test_a_record_that_names_a_subject_is_not_under_that_of_the_topic(server, stream):
    reader = Client(server.mqtt_address, 5)
    reader.subscribe((stream.subject, 1))
    stream.produce(b"elsewhere", headers=[("firth-subject", f"{stream.subject}/x".encode())])
    stream.produce(b"outside", headers=[("firth-subject", b"not/captured/by/this")])  # so it counts as under the topic's own
    stream.produce(b"plain")
    reader.nothing_but(Client(server.mqtt_address, 5), b"outside", b"plain")


def test_binary_and_strange_headers(server, stream):
    """What MQTT cannot hold is left out of its message and kept in the log; the rest comes."""
    reader = Client(server.mqtt_address, 5)
    reader.subscribe((stream.subject, 1))
    headers = [("good", b"yes"), ("bytes", b"\xff\xfe"), ("null", None), ("content-type", b"\xff"), ("good", b"again")]
    stream.produce(bytes(range(256)), headers=headers)
    packet = reader.receive()
    assert packet.payload == bytes(range(256))
    assert packet.props == {"user": [("good", "yes"), ("null", ""), ("good", "again")]}
    assert stream.records(1)[0].headers() == headers


def test_a_batch_of_kafka_comes_in_order(server, stream):
    readers = Readers(server, [f"{stream.subject}/#"])
    producer = confluent_kafka.Producer(
        {"bootstrap.servers": server.bootstrap, "linger.ms": 50, "compression.type": "zstd", "enable.idempotence": True}
    )
    for number in range(300):
        producer.produce(stream.name, b"%d" % number)
    assert producer.flush(20) == 0
    for name, (_, packets) in readers.receive(300).items():
        assert [packet.payload for packet in packets] == [b"%d" % number for number in range(300)], name


def test_both_publish_and_everybody_sees_the_order_of_the_log(server, stream):
    readers = Readers(server, [f"{stream.subject}/#"])
    publisher = Client(server.mqtt_address, 5)
    for number in range(0, 40, 2):
        publisher.publish(f"{stream.subject}/x", b"%d" % number, 1 + number // 2 % 2)
        stream.produce(b"%d" % (number + 1))
    wanted = [b"%d" % number for number in range(40)]
    assert [record.value() for record in stream.records(40)] == wanted
    for name, (_, packets) in readers.receive(40).items():
        if name not in ("live 4 0", "live 5 0"):  # those see what is published when it is
            assert [packet.payload for packet in packets] == wanted, name


def test_retained_and_its_null(server, stream):
    """An empty retained payload is Kafka's null; another empty payload stays one, and so does a null that Kafka wrote."""
    subject = f"{stream.subject}/state"
    publisher, reader = Client(server.mqtt_address, 5), Client(server.mqtt_address, 5)
    reader.subscribe((f"{stream.subject}/#", 1))
    publisher.publish(subject, b"on", 1, retain=True)
    publisher.publish(subject, b"", 1)
    publisher.publish(subject, b"", 1, retain=True)
    publisher.publish(subject, b"", 0)
    stream.produce(None, key=b"k")
    records = stream.records(5)
    assert [record.value() for record in records] == [b"on", b"", None, b"", None]
    assert [record.key() for record in records] == [subject.encode()] * 4 + [b"k"]
    assert ["firth-retain" in own_of(record) for record in records] == [True, False, True, False, False]
    assert [reader.receive().payload for _ in range(5)] == [b"on", b"", b"", b"", b""]
    late = Client(server.mqtt_address, 5)
    late.subscribe((f"{stream.subject}/#", 1))
    late.nothing_but(publisher)


@pytest.mark.parametrize("own", [("firth-qos", b"2"), ("firth-qos", b"0"), ("firth-key", b"x"), ("firth-other", b"x")])
def test_own_headers_of_a_kafka_record_set_nothing(server, stream, own):
    """As when a tool copies records with all their headers: the record is one of Kafka's, at QoS 1 and once."""
    readers = Readers(server, [f"{stream.subject}/#"])
    stream.produce(b"copied", headers=[own, ("h", b"1")])
    stream.produce(b"next")
    for name, (level, (packet, following)) in readers.receive(2).items():
        assert (packet.payload, following.payload) == (b"copied", b"next"), name
        assert packet.qos == min(1, granted(name)), name
        assert level == 4 or packet.props == {"user": [("h", "1")]}, name


def test_retained_by_mqtt_survives_and_is_whole(own_broker):
    """After kill -9, too."""
    server = own_broker(settings=SMALL)
    stream = Stream(server)
    subject = f"{stream.subject}/state"
    Client(server.mqtt_address, 5).publish(subject, PAYLOAD, 1, retain=True, props=whole_props(subject))
    server.kill9()
    server.start()
    late = Client(server.mqtt_address, 5)
    late.subscribe((f"{stream.subject}/#", 1))
    packet = late.receive()
    assert packet.retain
    packet.retain = False
    assert_whole(packet, 5, subject)
    assert stream.records(1)[0].value() == PAYLOAD


def test_expired_is_seen_by_nobody_of_mqtt(server, stream):
    name = uuid.uuid4().hex
    one = Client(server.mqtt_address, 5, client_id=name, **KEPT)
    one.subscribe((f"{stream.subject}/#", 1))
    one.disconnect()
    now = time.time_ns() // 1_000_000
    stream.produce(b"too late", headers=[("expires-at", str(now - 1000).encode())])
    stream.produce(b"in time", headers=[("expires-at", str(now + 60_000).encode())])
    one = Client(server.mqtt_address, 5, client_id=name, **KEPT)
    packet = one.receive()
    assert packet.payload == b"in time" and 50 <= packet.props["message_expiry"] <= 60
    one.nothing_but(Client(server.mqtt_address, 5))


@pytest.mark.parametrize(
    "mqtt, canonical",
    [
        *[("a b", "a b"), ("ü/☃", "ü/☃"), ("/", "/"), ("dot.ted", "dot.ted")],
        *[("st*r", "st*r"), ("st*", "st%2A"), ("*", "%2A"), (">", "%3E"), ("%2A", "%252A")],
    ],
)
def test_subjects_of_every_spelling(server, stream, mqtt, canonical):
    """There and back: MQTT's text is one text of the log, and that text in a record's header is MQTT's again."""
    reader = Client(server.mqtt_address, 5)
    reader.subscribe((f"{stream.subject}/#", 1))
    topic, text = f"{stream.subject}/{mqtt}", f"{stream.subject}/{canonical}"
    Client(server.mqtt_address, 5).publish(topic, b"from mqtt", 1)
    assert reader.receive().topic == topic
    (record,) = stream.records(1)
    assert own_of(record)["firth-subject"] == text.encode() and record.key() == text.encode()
    stream.produce(b"from kafka", headers=[("firth-subject", text.encode())])
    assert reader.receive().topic == topic


def test_a_topic_with_captures(server, stream):
    """What Kafka or MQTT publishes is stored in another topic by its filters, with all that belongs to it, and delivered once."""
    other = Stream(server, firth_captures=f"{stream.subject}/#")
    reader = Client(server.mqtt_address, 5)
    reader.subscribe((f"{stream.subject}/#", 1))
    subject = f"{stream.subject}/a"
    Client(server.mqtt_address, 5).publish(subject, PAYLOAD, 1, props=whole_props(subject))
    stream.produce(b"of kafka", key=b"k", headers=[("h", b"1")])
    first, second = other.records(2)
    assert (first.value(), first.key(), own_of(first)["firth-subject"]) == (PAYLOAD, subject.encode(), subject.encode())
    assert (second.value(), second.key(), headers_of(second)) == (b"of kafka", b"k", [("h", b"1")])
    assert own_of(second)["firth-subject"] == stream.subject.encode()
    assert [record.value() for record in stream.records(2)] == [PAYLOAD, b"of kafka"]
    reader.nothing_but(Client(server.mqtt_address, 5), PAYLOAD, b"of kafka")
