"""What every packet is made of: strings, lengths, identifiers, reserved bits; and what is not a packet at all."""

import pytest

from mqtt import packets
from mqtt.marks import differs, v3, v5
from mqtt.packets import Will, ack, connect, number, packet, publish, subscribe, text, two, unsubscribe

ILL_FORMED = {
    "surrogate": b"a\xed\xa0\x80",
    "last surrogate": b"\xed\xbf\xbf",
    "overlong": b"a\xc0\xaf",
    "cut": b"a\xe2\x82",
    "not a first byte": b"\x80a",
    "beyond Unicode": b"\xf4\x90\x80\x80",
    "0xFF": b"a\xffb",
}
NULLS = {"null": b"a\0b", "null at the end": b"a\0"}
IN_CONNECT = {
    "client id": lambda level, bad: connect(bad, level),
    "will topic": lambda level, bad: connect("x", level, will=Will(bad)),
    "user name": lambda level, bad: connect("x", level, user=bad, password=b"p"),
}
IN_CONNECT_5 = {
    "user property": lambda level, bad: connect("x", props={"user": (bad, "v")}),
    "value of a user property": lambda level, bad: connect("x", props={"user": ("n", bad)}),
    "authentication method": lambda level, bad: connect("x", props={"auth_method": bad}),
    "will content type": lambda level, bad: connect("x", will=Will("w", props={"content_type": bad})),
    "will response topic": lambda level, bad: connect("x", will=Will("w", props={"response_topic": bad})),
}
LATER = {
    "topic": lambda level, bad: publish(bad, level=level),
    "filter": lambda level, bad: subscribe(1, [(bad, 0)], level),
    "filter to unsubscribe": lambda level, bad: unsubscribe(1, [bad], level),
}
LATER_5 = {
    "response topic": lambda level, bad: publish("t", props={"response_topic": bad}),
    "content type": lambda level, bad: publish("t", props={"content_type": bad}),
    "user property": lambda level, bad: publish("t", props={"user": ("n", bad)}),
    "user property of SUBSCRIBE": lambda level, bad: subscribe(1, [("t", 0)], props={"user": (bad, "v")}),
    "reason string": lambda level, bad: packets.disconnect(0, {"reason_string": bad}),
}


def cases(*groups):
    for group, levels in groups:
        for place in group:
            for how in ("surrogate", "null"):
                for level in levels:
                    yield pytest.param(group[place], level, how, id=f"{place}-{how}-{level}")


@pytest.mark.parametrize(("build", "level", "how"), cases((IN_CONNECT, (4, 5)), (IN_CONNECT_5, (5,))))
@v5("1.5.4-1", "1.5.4-2", "1.5.7-1", "3.1.3-4", "3.1.3-11", "3.1.3-12", "3.1.4-1")
@v3("1.4.0-1", "1.4.0-2", "3.1.3-4", "3.1.3-10", "3.1.3-11")
def test_bad_text_in_connect(raw, build, level, how):
    link = raw(level)
    link.send(build(level, {**ILL_FORMED, **NULLS}[how]))
    link.refused(*((0x81, 0x82, 0x85, 0x8C, 0x90) if level == 5 else ()))


@pytest.mark.parametrize(("build", "level", "how"), cases((LATER, (4, 5)), (LATER_5, (5,))))
@v5("1.5.4-1", "1.5.4-2", "1.5.7-1", "3.3.2-1", "3.3.2-13", "3.3.2-19", "3.8.3-1", "3.10.3-1", "4.7.3-2", "4.13.1-1")
@v3("1.4.0-1", "1.4.0-2", "3.3.2-1", "3.8.3-1", "3.10.3-1", "4.7.3-2")
def test_bad_text(client, build, level, how):
    one = client(level)
    one.send(build(level, {**ILL_FORMED, **NULLS}[how]))
    one.expect_close(0x81, 0x82, 0x8F, 0x90)


@pytest.mark.parametrize("bad", {**ILL_FORMED, **NULLS})
@v5("1.5.4-1", "1.5.4-2", "3.3.2-1")
@v3("1.4.0-1", "1.4.0-2", "3.3.2-1")
def test_every_bad_text(client, level, bad):
    one = client(level)
    one.send(publish({**ILL_FORMED, **NULLS}[bad], level=level))
    one.expect_close(0x81, 0x82, 0x90)


@v5("1.5.4-3", "4.7.3-4")
@v3("1.4.0-3", "4.7.3-4")
def test_byte_order_mark_is_a_letter_of_a_topic(client, level, topic):
    one = client(level)
    one.subscribe(f"\ufeff{topic}", (topic, 0))
    one.publish(f"\ufeff{topic}", b"marked", qos=1)
    one.publish(topic, b"plain", qos=1)
    assert [(one.receive().topic) for _ in range(2)] == [f"\ufeff{topic}", topic]
    assert one.settled() == []


@pytest.mark.parametrize("letters", ("é", "e\u0301", "\U0001f980", "\ue000", "ﬀ", "A", "a"))
@v5("4.7.3-4", "1.5.4-1")
@v3("4.7.3-4")
def test_letters_stay_what_they_are(client, level, topic, letters):
    one = client(level)
    one.subscribe(f"{topic}/{letters}")
    for each in ("é", "e\u0301", "\U0001f980", "\ue000", "ﬀ", "A", "a"):
        one.publish(f"{topic}/{each}", qos=1)
    assert one.receive().topic == f"{topic}/{letters}"
    assert one.settled() == []


@pytest.mark.parametrize("width", (2, 3, 4))
@v5("1.5.5-1")
@differs("mosquitto", "takes lengths that are longer than needed")
def test_length_longer_than_needed(client, width):
    one = client()
    one.send(packet("PINGREQ", 0, width=width))
    one.expect_close(0x81)


@v5("1.5.5-1")
def test_property_length_longer_than_needed(client):
    one = client()
    one.send(packet("PUBLISH", 0, text("t") + number(0, 2) + b"x"))
    one.expect_close(0x81)


@pytest.mark.parametrize("first", (0x10, 0x30, 0x32, 0x82, 0xC0))
@v5("1.5.5-1", "4.13.1-1")
@v3("4.8.0-1")
def test_length_of_five_bytes(client, level, first):
    one = client(level)
    one.send(bytes([first, 0xFF, 0xFF, 0xFF, 0xFF, 0x01]))
    one.expect_close(0x81, 0x82, 0x95)


FLAGS = {
    "PUBACK": lambda level: (ack("PUBACK", 1, bits=bits) for bits in (1, 2, 8)),
    "PUBREC": lambda level: (ack("PUBREC", 1, bits=bits) for bits in (1, 2, 8)),
    "PUBCOMP": lambda level: (ack("PUBCOMP", 1, bits=bits) for bits in (1, 2, 8)),
    "SUBSCRIBE": lambda level: (subscribe(1, [("a", 0)], level, bits=bits) for bits in (0, 1, 3, 10)),
    "UNSUBSCRIBE": lambda level: (unsubscribe(1, ["a"], level, bits=bits) for bits in (0, 1, 3, 10)),
    "PINGREQ": lambda level: (packet("PINGREQ", bits) for bits in (1, 2, 8)),
    "DISCONNECT": lambda level: (packets.disconnect(bits=bits) for bits in (1, 2, 8)),
}


def flag_cases():
    for kind in FLAGS:
        marks = ()
        if kind in ("PUBACK", "PUBREC", "PUBCOMP", "PINGREQ"):
            marks = differs("mosquitto", "does not look at the reserved bits of this packet")
        yield pytest.param(kind, marks=marks)


@pytest.mark.parametrize("kind", flag_cases())
@v5("2.1.3-1", "3.8.1-1", "3.10.1-1", "3.14.1-1")
@v3("2.2.2-1", "2.2.2-2", "3.8.1-1", "3.10.1-1", "3.14.1-1")
def test_reserved_bits(client, level, kind):
    for broken in FLAGS[kind](level):
        one = client(level)
        one.send(broken)
        one.expect_close(0x81, 0x82)


@pytest.mark.parametrize("bits", (0, 1, 3, 10))
@v5("3.6.1-1", "2.1.3-1")
@v3("3.6.1-1", "2.2.2-1", "2.2.2-2")
def test_reserved_bits_of_pubrel(client, level, topic, bits):
    one = client(level)
    one.send(publish(topic, b"x", 2, 5, level=level))
    one.expect("PUBREC", 5)
    one.send(ack("PUBREL", 5, bits=bits))
    one.expect_close(0x81, 0x82)


@pytest.mark.parametrize("bits", (1, 2, 8, 15))
@v5("2.1.3-1", "3.1.4-1")
@v3("2.2.2-1", "2.2.2-2")
def test_reserved_bits_of_connect(raw, level, bits):
    link = raw(level)
    link.send(connect("", level, bits=bits))
    link.refused(0x81, 0x82)


@pytest.mark.parametrize("bits", (1, 2, 8))
@v5("3.15.1-1", "2.1.3-1")
def test_reserved_bits_of_auth(client, bits):
    one = client()
    one.send(packets.auth(0x18, {"auth_method": "m"}, bits))
    one.expect_close(0x81, 0x82)


NOT_FOR_SERVERS = {
    "type 0": packet(0, 0),
    "CONNACK": packet("CONNACK", 0, b"\0\0\0"),
    "SUBACK": packet("SUBACK", 0, b"\0\1\0\0"),
    "UNSUBACK": packet("UNSUBACK", 0, b"\0\1\0\0"),
    "PINGRESP": packet("PINGRESP", 0),
}


def server_packets():
    why = "is a client of other brokers itself and takes answers to what it never asked"
    for kind in NOT_FOR_SERVERS:
        yield pytest.param(kind, marks=differs("mosquitto", why) if kind in ("SUBACK", "UNSUBACK", "PINGRESP") else ())


@pytest.mark.parametrize("kind", server_packets())
@v5("4.13.1-1")
@v3("4.8.0-1")
def test_packets_that_no_client_sends(client, level, kind):
    one = client(level)
    one.send(NOT_FOR_SERVERS[kind])
    one.expect_close(0x81, 0x82)


@v3("4.8.0-1")
def test_type_fifteen_is_none_in_3_1_1(client):
    one = client(4)
    one.send(packets.auth())
    one.expect_close()


@pytest.mark.parametrize("kind", ("PUBLISH 1", "PUBLISH 2", "SUBSCRIBE", "UNSUBSCRIBE"))
@v5("2.2.1-3")
@v3("2.3.1-1")
def test_packet_identifier_zero(client, level, kind):
    one = client(level)
    broken = {
        "PUBLISH 1": publish("t", b"x", 1, 0, level=level),
        "PUBLISH 2": publish("t", b"x", 2, 0, level=level),
        "SUBSCRIBE": subscribe(0, [("t", 0)], level),
        "UNSUBSCRIBE": unsubscribe(0, ["t"], level),
    }[kind]
    one.send(broken)
    one.expect_close(0x81, 0x82)


@pytest.mark.parametrize("packet_id", (1, 255, 256, 65535))
@v5("2.2.1-5", "2.2.1-6", "3.8.4-2", "4.3.2-4", "4.3.3-8", "4.3.3-11")
@v3("2.3.1-6", "2.3.1-7", "3.8.4-2", "3.10.4-4")
def test_answers_carry_the_identifier(client, level, topic, packet_id):
    one = client(level)
    one.send(subscribe(packet_id, [(topic, 0)], level))
    assert one.next("SUBACK").packet_id == packet_id
    one.send(unsubscribe(packet_id, [topic], level))
    assert one.next("UNSUBACK").packet_id == packet_id
    one.send(publish(topic, b"x", 1, packet_id, level=level))
    assert one.next("PUBACK").packet_id == packet_id
    one.send(publish(topic, b"x", 2, packet_id, level=level))
    assert one.next("PUBREC").packet_id == packet_id
    one.send(ack("PUBREL", packet_id))
    assert one.next("PUBCOMP").packet_id == packet_id


@v5("2.2.1-4", "4.3.2-1", "4.3.3-1")
@v3("2.3.1-4", "4.3.2-1", "4.3.3-1")
def test_servers_identifiers_are_in_use_once(client, level, topic):
    """Ten packets in flight, five settled, five more: never is an identifier on two of them."""
    one, publisher = client(level), client(level)
    one.subscribe((topic, 2))
    for qos in (1, 2) * 5:
        publisher.publish(topic, b"x", qos)
    first = [one.receive(settle=False) for _ in range(10)]
    assert len({packet.packet_id for packet in first} - {0}) == 10
    for packet in first[::2]:
        one.send(ack("PUBACK", packet.packet_id))
    for _ in range(5):
        publisher.publish(topic, b"y", 1)
    second = [one.receive(settle=False) for _ in range(5)]
    in_flight = [packet.packet_id for packet in first[1::2] + second]
    assert len(set(in_flight) - {0}) == 10


@v5("2.2.1-2", "2.2.2-1", "4.3.1-1")
@v3("2.3.1-5", "4.3.1-1")
def test_qos_0_on_the_wire_byte_for_byte(client, level, topic):
    one = client(level)
    one.subscribe((topic, 0))
    one.publish(topic, b"payload")
    assert one.receive().raw == publish(topic, b"payload", level=level)


@v5("2.2.1-2")
@v3("2.3.1-5")
def test_qos_0_with_an_identifier_is_payload(client, level, topic):
    """What looks like an identifier is not taken for one."""
    one = client(level)
    one.subscribe((topic, 0))
    data = publish(topic, b"\0\7x", level=level)
    one.send(data)
    assert one.receive().payload == b"\0\7x"


CUT = {
    "PUBLISH without a topic": packet("PUBLISH", 0),
    "PUBLISH with half a topic": packet("PUBLISH", 0, b"\0\5ab"),
    "PUBLISH without its identifier": packet("PUBLISH", 2, text("t")),
    "PUBACK without an identifier": packet("PUBACK", 0),
    "PUBACK with half an identifier": packet("PUBACK", 0, b"\0"),
    "PUBREC without an identifier": packet("PUBREC", 0),
    "PUBREL without an identifier": packet("PUBREL", 2),
    "PUBCOMP without an identifier": packet("PUBCOMP", 0),
    "SUBSCRIBE without an identifier": packet("SUBSCRIBE", 2),
    "UNSUBSCRIBE without an identifier": packet("UNSUBSCRIBE", 2),
}


@pytest.mark.parametrize("case", CUT)
@v5("4.13.1-1")
@v3("4.8.0-1")
def test_packets_cut_short(client, level, case):
    one = client(level)
    one.send(CUT[case])
    one.expect_close(0x81, 0x82)


CUT_5 = {
    "properties longer than PUBLISH": packet("PUBLISH", 0, text("t") + number(50) + b"x"),
    "no properties in PUBLISH": packet("PUBLISH", 0, text("t")),
    "half a property": packet("PUBLISH", 0, text("t") + packets.properties(b"\x02\0\0")),
    "unknown property": packet("PUBLISH", 0, text("t") + packets.properties(b"\x7f\0")),
    "property of CONNECT in PUBLISH": publish("t", props={"session_expiry": 1}),
    "property of PUBLISH in SUBSCRIBE": subscribe(1, [("t", 0)], props={"topic_alias": 1}),
    "property of PUBLISH in UNSUBSCRIBE": unsubscribe(1, ["t"], props={"content_type": "x"}),
    "property of PUBLISH in DISCONNECT": packets.disconnect(0, {"content_type": "x"}),
    "payload format 2": publish("t", props={"payload_format": 2}),
    "payload format twice": publish("t", props={"payload_format": [1, 1]}),
    "message expiry twice": publish("t", props={"message_expiry": [9, 9]}),
    "content type twice": publish("t", props={"content_type": ["a", "a"]}),
    "response topic twice": publish("t", props={"response_topic": ["a", "a"]}),
    "correlation data twice": publish("t", props={"correlation_data": [b"a", b"a"]}),
    "topic alias twice": publish("t", props={"topic_alias": [1, 1]}),
}


def wrong_properties():
    for case in CUT_5:
        yield pytest.param(case, marks=differs("mosquitto", "takes any payload format") if case == "payload format 2" else ())


@pytest.mark.parametrize("case", wrong_properties())
@v5("4.13.1-1", "2.2.2-1")
def test_wrong_properties(client, case):
    one = client()
    one.send(CUT_5[case])
    one.expect_close(0x81, 0x82)


@pytest.mark.parametrize("kind", ("PUBACK", "PUBREC", "PUBREL", "PUBCOMP"))
@v5("3.4.2-1", "3.5.2-1", "3.6.2-1", "3.7.2-1", "4.13.1-1")
@differs("mosquitto", "takes any reason code in an acknowledgement")
def test_reason_codes_that_are_none(client, topic, kind):
    one = client()
    if kind == "PUBREL":
        one.send(publish(topic, b"x", 2, 5))
        one.expect("PUBREC", 5)
        one.send(ack("PUBREL", 5, 0x55))
    else:
        one.subscribe((topic, 2))
        client().publish(topic, b"x", qos=1 if kind == "PUBACK" else 2)
        packet_id = one.receive(settle=False).packet_id
        if kind == "PUBCOMP":
            one.send(ack("PUBREC", packet_id))
            one.expect("PUBREL", packet_id)
        one.send(ack(kind, packet_id, 0x55))
    one.expect_close(0x81, 0x82)


@v5("3.14.2-1", "3.14.2-2")
@pytest.mark.parametrize("broken", (packets.disconnect(0x55), packets.disconnect(0x8E)))
def test_reason_codes_that_no_client_says(client, broken):
    one = client()
    one.send(broken)
    one.expect_close(0x81, 0x82)


@v5("3.14.2-1", "3.14.4-2")
@pytest.mark.parametrize("length", (0, 1, 2))
def test_disconnect_may_be_short(client, length):
    one = client()
    one.send(packet("DISCONNECT", 0, b"\0\0"[:length]))
    assert one.expect_close() is None


@pytest.mark.parametrize("version", (4, 5))
def test_noise_is_not_answered(raw, version):
    link = raw(version)
    link.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + two(0) * 50)
    link.gone()


@v5("3.12.4-1")
@v3("3.12.4-1")
def test_ping(client, level):
    one = client(level)
    for _ in range(3):
        one.send(packets.PINGREQ)
        one.next("PINGRESP")
