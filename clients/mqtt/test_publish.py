"""PUBLISH from a client at QoS 0, 1 and 2: the answers, the four steps, duplicates, and what subscribers then get."""

import pytest

from mqtt import packets
from mqtt.marks import differs, v3, v5
from mqtt.packets import ack, publish

LEVELS = pytest.mark.parametrize("level", (3, 4, 5))
QOS = pytest.mark.parametrize("qos", (0, 1, 2))


@LEVELS
@QOS
@pytest.mark.parametrize("granted", (0, 1, 2))
@v5("3.3.4-1", "3.8.4-8", "3.8.4-7", "4.3.1-1", "4.3.2-2", "4.3.2-4", "4.3.3-2", "4.3.3-8", "4.3.3-11", "4.5.0-1", "3.3.2-3")
@v3("3.3.4-1", "3.8.4-5", "3.8.4-6", "4.3.1-1", "4.3.2-1", "4.3.2-2", "4.3.3-1", "4.3.3-2", "4.5.0-1", "3.3.2-3", "3.9.3-2")
def test_delivered_at_the_lower_qos(client, level, topic, qos, granted):
    subscriber, publisher = client(level), client(level)
    assert subscriber.subscribe((topic, granted)).reasons == [granted]
    answer = publisher.publish(topic, b"payload", qos)
    assert answer is None or answer.reason == 0
    packet = subscriber.receive()
    assert (packet.topic, packet.payload) == (topic, b"payload")
    assert (packet.qos, packet.dup, packet.retain) == (min(qos, granted), False, False)
    assert subscriber.settled() == publisher.settled() == []


@v5("3.3.1-4")
@v3("3.3.1-4")
def test_qos_three(client, level, topic):
    one = client(level)
    one.send(publish(topic, b"x", 3, 1, level=level))
    one.expect_close(0x81, 0x82)


@v5("3.3.1-2")
@v3("3.3.1-2")
@differs("mosquitto", "takes DUP at QoS 0")
def test_dup_at_qos_0(client, level, topic):
    one = client(level)
    one.send(publish(topic, b"x", dup=True, level=level))
    one.expect_close(0x81, 0x82)


@pytest.mark.parametrize("qos", (1, 2))
@v5("3.3.1-3")
@v3("3.3.1-3")
def test_dup_is_not_handed_on(client, level, topic, qos):
    subscriber, publisher = client(level), client(level)
    subscriber.subscribe((topic, 2))
    publisher.send(publish(topic, b"x", qos, 9, dup=True, level=level))
    publisher.expect("PUBACK" if qos == 1 else "PUBREC", 9)
    if qos == 2:
        publisher.send(ack("PUBREL", 9))
    assert subscriber.receive().dup is False


@pytest.mark.parametrize("bad", ("{}/#", "{}/+", "#", "+", "{}/a#b", "{}+"))
@v5("3.3.2-2", "4.7.0-1")
@v3("3.3.2-2", "4.7.1-1")
def test_wildcards_in_a_topic(client, level, topic, bad):
    one = client(level)
    one.send(publish(bad.format(topic), b"x", level=level))
    one.expect_close(0x81, 0x82, 0x90)


@v5("4.7.3-1")
@v3("4.7.3-1")
def test_empty_topic(client, level):
    one = client(level)
    one.send(publish("", b"x", level=level))
    one.expect_close(0x81, 0x82, 0x90)


@QOS
@pytest.mark.parametrize("length", (1_000, 65_535))
@v5("4.7.3-3")
@v3("4.7.3-3")
def test_long_topic(client, level, topic, qos, length):
    """A thousand bytes are a topic like any other; 65,535 are one too, or are refused with a reason."""
    subscriber, publisher = client(level), client(level)
    long = topic.ljust(length, "x")
    granted = subscriber.ask_subscribe((long, 2)).reasons[0]
    if granted >= 0x80 and length == 65_535:
        assert granted in (0x80, 0x8F, 0x97)
        return
    publisher.publish(long, b"long", qos)
    assert subscriber.receive().topic == long


@pytest.mark.parametrize("qos", (1, 2))
@v5("4.3.2-5", "4.3.3-12", "4.3.2-4")
@v3("4.3.2-2", "4.3.3-2")
def test_an_identifier_is_free_again(client, level, topic, qos):
    """After PUBACK and after PUBCOMP the same identifier is a new message, DUP or not."""
    subscriber, publisher = client(level), client(level)
    subscriber.subscribe((topic, 2))
    for dup, payload in ((False, b"1"), (True, b"2"), (False, b"3")):
        publisher.send(publish(topic, payload, qos, 7, dup=dup, level=level))
        publisher.expect("PUBACK" if qos == 1 else "PUBREC", 7)
        if qos == 2:
            publisher.send(ack("PUBREL", 7))
            publisher.expect("PUBCOMP", 7)
    assert subscriber.payloads(3) == [b"1", b"2", b"3"]


@pytest.mark.parametrize("dup", (False, True))
@v5("4.3.3-10")
@v3("4.3.3-2")
@differs("mosquitto", "closes when a PUBLISH at QoS 2 comes a third time")
def test_qos_2_again_before_pubrel(client, level, topic, dup):
    subscriber, publisher = client(level), client(level)
    subscriber.subscribe((topic, 2))
    for again in (False, dup, dup):
        publisher.send(publish(topic, b"once", 2, 8, dup=again, level=level))
        publisher.expect("PUBREC", 8)
    publisher.send(ack("PUBREL", 8))
    publisher.expect("PUBCOMP", 8)
    assert subscriber.receive().payload == b"once"
    subscriber.nothing_but(publisher)


@v5("4.3.3-10", "4.4.0-1", "4.1.0-1")
@v3("4.3.3-2", "4.4.0-1", "4.1.0-1")
@pytest.mark.parametrize("step", ("PUBLISH", "PUBREL"))
def test_qos_2_finished_on_another_connection(client, level, topic, name, step):
    """The first connection ends behind PUBREC; the next sends PUBLISH again, or goes on with PUBREL: one message."""
    subscriber = client(level)
    subscriber.subscribe((topic, 2))
    kept = {"client_id": name, "clean": False, "props": {"session_expiry": 60}}
    publisher = client(level, **kept)
    publisher.send(publish(topic, b"once", 2, 3, level=level))
    publisher.expect("PUBREC", 3)
    publisher.drop()
    publisher = client(level, **kept)
    assert publisher.connack.session_present
    if step == "PUBLISH":
        publisher.send(publish(topic, b"once", 2, 3, dup=True, level=level))
        publisher.expect("PUBREC", 3)
    publisher.send(ack("PUBREL", 3))
    publisher.expect("PUBCOMP", 3)
    assert subscriber.receive().payload == b"once"
    subscriber.nothing_but(publisher)


@v5("3.1.2-4", "4.3.3-12")
@v3("3.1.2-6")
def test_qos_2_is_forgotten_with_its_session(client, level, topic, name):
    subscriber = client(level)
    subscriber.subscribe((topic, 2))
    for payload in (b"first", b"second"):
        publisher = client(level, client_id=name)
        publisher.send(publish(topic, payload, 2, 3, level=level))
        publisher.expect("PUBREC", 3)
        if payload == b"second":
            publisher.send(ack("PUBREL", 3))
            publisher.expect("PUBCOMP", 3)
        publisher.drop()
    came = [subscriber.receive().payload]
    if came != [b"second"]:  # a broker may hand on at PUBLISH or at PUBREL
        came.append(subscriber.receive().payload)
    assert came in ([b"second"], [b"first", b"second"])


@v5("3.7.2-1", "4.3.3-11")
@v3("4.3.3-2")
def test_pubrel_of_an_unknown_identifier(client, level):
    """Level 5 may say 0x92; the connection stays."""
    one = client(level)
    one.send(ack("PUBREL", 999))
    assert one.expect("PUBCOMP", 999).reason in (0, 0x92)
    assert one.settled() == []


@v5("4.3.3-11", "3.7.2-1")
@v3("4.3.3-2")
def test_pubrel_again(client, level, topic):
    one = client(level)
    one.publish(topic, b"x", 2)
    one.send(ack("PUBREL", 1))
    assert one.expect("PUBCOMP", 1).reason in (0, 0x92)


@v5("4.3.3-11")
@pytest.mark.parametrize("form", ((None, None), (0, None), (0, {}), (0, {"reason_string": "r", "user": [("a", "b"), ("a", "c")]})))
def test_forms_of_pubrel(client, topic, form):
    one = client()
    one.send(publish(topic, b"x", 2, 3))
    one.expect("PUBREC", 3)
    one.send(ack("PUBREL", 3, *form))
    assert one.expect("PUBCOMP", 3).reason == 0


@v5("3.4.2-1", "3.5.2-1")
@pytest.mark.parametrize("qos", (1, 2))
def test_no_matching_subscribers(client, topic, qos):
    """0x10 where the broker tells: it may, and then only where nobody subscribes."""
    one = client()
    one.send(publish(topic, b"x", qos, 3))
    assert one.next("PUBACK" if qos == 1 else "PUBREC").reason in (0, 0x10)


@v5("3.4.2-1", "3.5.2-1")
@pytest.mark.parametrize("qos", (1, 2))
def test_matching_subscribers(client, topic, qos):
    client().subscribe(topic)
    one = client()
    one.send(publish(topic, b"x", qos, 3))
    assert one.next("PUBACK" if qos == 1 else "PUBREC").reason == 0


@v5("4.6.0-5", "4.6.0-6")
@v3("4.6.0-5", "4.6.0-6", "4.6.0-1")
@QOS
def test_order_of_one_publisher(client, level, topic, qos):
    subscriber, publisher = client(level), client(level)
    subscriber.subscribe((topic, 2))
    wanted = [b"%d" % at for at in range(100)]
    for payload in wanted:
        publisher.publish(topic, payload, qos)
    assert subscriber.payloads(100) == wanted


@v5("4.6.0-2", "4.6.0-3", "4.6.0-5")
@v3("4.6.0-2", "4.6.0-3", "4.6.0-6")
def test_order_of_answers(client, level, topic):
    """PUBACKs, PUBRECs and PUBCOMPs come in the order of what they answer."""
    one = client(level)
    window = min(one.limit("receive_maximum", 65535), 15)
    one.send(*(publish(topic, b"x", 1, packet_id, level=level) for packet_id in range(1, window + 1)))
    assert [one.expect("PUBACK").packet_id for _ in range(window)] == list(range(1, window + 1))
    one.send(*(publish(topic, b"x", 2, packet_id, level=level) for packet_id in range(1, window + 1)))
    assert [one.expect("PUBREC").packet_id for _ in range(window)] == list(range(1, window + 1))
    one.send(*(ack("PUBREL", packet_id) for packet_id in range(1, window + 1)))
    assert [one.expect("PUBCOMP").packet_id for _ in range(window)] == list(range(1, window + 1))


@QOS
@pytest.mark.parametrize("size", (0, 1, 127, 128, 16_383, 16_384, 100_000, 2_097_152))
@v5("4.5.0-1", "1.5.5-1")
@v3("4.5.0-1")
def test_payloads_of_every_length_of_length(client, level, topic, qos, size):
    subscriber, publisher = client(level), client(level)
    # 3.1.1 cannot be told the limit, so it is asked for at 5.0.
    if size > client(5).limit("maximum_packet_size", 1 << 28) - 100:
        pytest.skip("more than this broker takes")
    subscriber.subscribe((topic, 2))
    payload = bytes(at * 7 % 251 for at in range(min(size, 997))) * (size // 997 + 1)
    publisher.publish(topic, payload[:size], qos)
    assert subscriber.receive().payload == payload[:size]


@v5("4.3.3-8", "4.9.0-3")
@v3("4.3.3-2")
def test_many_qos_2_open_at_once(client, level, topic):
    subscriber, publisher = client(level), client(level)
    subscriber.subscribe((topic, 2))
    window = min(publisher.limit("receive_maximum", 65535), 20)
    for packet_id in range(1, window + 1):
        publisher.send(publish(topic, b"%d" % packet_id, 2, packet_id, level=level))
    for packet_id in range(1, window + 1):
        publisher.expect("PUBREC", packet_id)
    publisher.send(packets.PINGREQ)
    publisher.expect("PINGRESP")
    for packet_id in range(1, window + 1):
        publisher.send(ack("PUBREL", packet_id))
        publisher.expect("PUBCOMP", packet_id)
    assert subscriber.payloads(window) == [b"%d" % packet_id for packet_id in range(1, window + 1)]
