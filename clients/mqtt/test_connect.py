"""CONNECT and CONNACK: what opens a connection, what is refused, and what the answer may hold."""

import pytest

from mqtt import packets
from mqtt.link import Client, let_pass
from mqtt.marks import differs, v3, v5
from mqtt.packets import Will, connect, number, packet, publish, subscribe, text, two

LEVELS = pytest.mark.parametrize("level", (3, 4, 5))
BEFORE = {
    "PUBLISH": publish("a", b"x"),
    "SUBSCRIBE": subscribe(1, [("a", 0)]),
    "UNSUBSCRIBE": packets.unsubscribe(1, ["a"]),
    "PINGREQ": packets.PINGREQ,
    "PUBACK": packets.ack("PUBACK", 1),
    "DISCONNECT": packets.disconnect(),
    "AUTH": packets.auth(0x18, {"auth_method": "m"}),
}


def body(level=5, flags=2, *fields, name="MQTT", props=b"\0"):
    """A CONNECT whose payload is written out by hand."""
    return packet("CONNECT", 0, text(name) + bytes([level, flags]) + two(60) + (props if level == 5 else b"") + b"".join(fields))


@LEVELS
@v5("3.1.4-5", "3.2.0-1", "3.2.2-1", "3.2.2-2", "3.2.2-8", "4.2.0-1")
@v3("3.1.4-4", "3.2.0-1", "3.2.2-1", "7.0.0-2", "7.1.1-1")
def test_accepts_and_answers_first(client, level):
    one = client(level)
    assert (one.connack.reason, one.connack.session_present) == (0, False)


@pytest.mark.parametrize("kind", BEFORE)
@v5("3.1.0-1", "3.14.0-1", "3.2.0-1")
@v3("3.1.0-1")
def test_first_packet_is_connect(raw, kind):
    link = raw()
    link.send(BEFORE[kind])
    link.gone()


@v5("3.1.0-2", "4.13.1-1", "3.2.0-2", "4.13.2-1")
@v3("3.1.0-2", "4.8.0-1")
def test_second_connect(client, level):
    one = client(level)
    one.send(connect(one.client_id, level))
    one.expect_close(0x82)


@pytest.mark.parametrize("name", ("MQTX", "mqtt", "HTTP", "", "MQIsd"))
@v5("3.1.2-1")
@v3("3.1.2-1")
def test_other_protocol_name(raw, level, name):
    link = raw(level)
    link.send(connect("x", level, name=name))
    link.refused(0x84 if level == 5 else 1)


@pytest.mark.parametrize("other", (0, 1, 2, 6, 127))
@v5("3.1.2-2")
def test_other_protocol_version(raw, other):
    link = raw(4)
    link.send(body(other, 2, text("x")))
    link.refused()


@pytest.mark.parametrize("other", (0, 2, 6))
@v3("3.1.2-2")
def test_unknown_level_is_answered(raw, other):
    link = raw(4)
    link.send(body(other, 2, text("x")))
    connack = link.read()
    assert connack.kind == "CONNACK"


@v5("3.1.2-3")
@v3("3.1.2-3")
def test_reserved_connect_flag(raw, level):
    link = raw(level)
    link.send(connect("x", level, flags=0x03))
    link.refused(0x81)


@v5("3.1.2-11")
@v3("3.1.2-11", "3.1.2-13")
@pytest.mark.parametrize("qos", (1, 2))
def test_will_qos_without_will(raw, level, qos):
    link = raw(level)
    link.send(connect("x", level, flags=0x02 | qos << 3))
    link.refused(0x81, 0x82)


@v5("3.1.2-13")
@v3("3.1.2-15", "3.1.2-11")
def test_will_retain_without_will(raw, level):
    link = raw(level)
    link.send(connect("x", level, flags=0x22))
    link.refused(0x81, 0x82)


@v5("3.1.2-12")
@v3("3.1.2-14")
def test_will_qos_three(raw, level):
    link = raw(level)
    link.send(connect("x", level, will=Will("w", qos=3)))
    link.refused(0x81, 0x82)


FIELDS = {
    "nothing at all": (0x02, ()),
    "will without its topic": (0x06, (text("x"),)),
    "will without its payload": (0x06, (text("x"), b"W", text("w"))),
    "user name missing": (0x82, (text("x"),)),
    "password missing": (0xC2, (text("x"), text("u"))),
    "user name not announced": (0x02, (text("x"), text("u"))),
    "password not announced": (0x82, (text("x"), text("u"), text("p"))),
    "a byte too many": (0x02, (text("x"), b"\0")),
    "client id cut short": (0x02, (b"\0\5abc",)),
}


@pytest.mark.parametrize("case", FIELDS)
@v5("3.1.2-9", "3.1.2-16", "3.1.2-17", "3.1.2-18", "3.1.2-19", "3.1.3-1", "3.1.3-3", "3.1.4-1", "3.1.4-2")
@v3("3.1.2-9", "3.1.2-18", "3.1.2-19", "3.1.2-20", "3.1.2-21", "3.1.3-1", "3.1.3-3", "3.1.4-1")
def test_payload_is_what_the_flags_say(raw, level, case):
    flags, fields = FIELDS[case]
    fields = [(b"\0" if level == 5 else b"") if field == b"W" else field for field in fields]
    link = raw(level)
    link.send(body(level, flags, *fields))
    link.refused(0x81, 0x82)


@v3("3.1.2-22")
def test_password_without_user_name(raw):
    link = raw(4)
    link.send(connect("x", 4, password=b"p"))
    link.refused()


@v3("3.1.4-1", "3.2.2-6")
def test_malformed_connect_is_not_answered(raw):
    link = raw(4)
    link.send(connect("x", 4, flags=0x03))
    link.gone()


@pytest.mark.parametrize("one", "09afzAFZ")
@v5("3.1.3-5")
@v3("3.1.3-5")
def test_plain_client_ids(client, level, one):
    for length in (1, 23):
        client(level, client_id=one * length).disconnect()


@v5("3.1.3-5")
@v3("3.1.3-5")
def test_every_letter_in_client_ids(client, level):
    letters = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    for at in range(0, len(letters), 23):
        client(level, client_id=letters[at : at + 23]).disconnect()


@v5("3.1.3-6", "3.1.3-7", "3.2.2-16")
@v3("3.1.3-6")
def test_empty_client_id(client, level):
    one, other = client(level, client_id=""), client(level, client_id="")
    if level == 5:
        given = [each.connack.props["assigned_client_id"] for each in (one, other)]
        assert given[0] and given[0] != given[1]
    assert one.settled() == other.settled() == []


@v5("3.1.3-6", "3.1.3-7")
def test_assigned_client_id_is_the_sessions(client, topic):
    one = client(client_id="", clean=False, props={"session_expiry": 60})
    one.subscribe(topic)
    given = one.connack.props["assigned_client_id"]
    one.disconnect()
    assert client(client_id=given, clean=False).connack.session_present


@v5("3.1.3-7")
def test_no_client_id_assigned_where_one_was_given(client, name):
    assert "assigned_client_id" not in client(client_id=name).connack.props


@v3("3.1.3-7", "3.1.3-8", "3.1.3-9", "3.2.2-4", "3.2.2-5")
def test_empty_client_id_wants_a_clean_session(raw):
    link = raw(4)
    link.send(connect("", 4, clean=False))
    connack = link.refused(2)
    assert connack is not None, "closed without a CONNACK"


@v5("3.1.3-8", "3.2.2-6", "3.2.2-7", "3.14.0-1")
def test_refused_client_id(raw):
    """A client id of 65,535 bytes: taken, or refused by its reason."""
    link = raw()
    link.send(connect("i" * 65535))
    connack = link.read()
    assert connack.kind == "CONNACK"
    if connack.reason:
        assert connack.reason in (0x85, 0x95)
        link.gone()


@v5("3.1.4-6")
@v3("3.1.4-5")
def test_nothing_behind_a_refused_connect_is_done(raw, client, level, topic):
    subscriber = client(level)
    subscriber.subscribe(topic)
    link = raw(level)
    link.send(connect("", level, flags=0x03), publish(topic, b"refused", level=level))
    link.refused()
    publisher = client(level)
    publisher.publish(topic, b"accepted")
    assert subscriber.receive().payload == b"accepted"


@v5("3.1.4-5")
@v3("3.1.4-4")
def test_packets_may_follow_connect_at_once(raw, level, topic):
    link = raw(level)
    link.send(connect("", level), subscribe(9, [(topic, 0)], level), publish(topic, b"early", level=level))
    assert link.next("CONNACK").reason == 0
    link.expect("SUBACK", 9)
    assert link.expect("PUBLISH").payload == b"early"


@v5("3.1.2-22", "3.2.2-22")
@v3("3.1.2-24")
@differs("mosquitto", "looks for silent clients every few seconds only", always=False)
def test_keep_alive(client, level):
    one = client(level, keep_alive=1)
    if one.connack.props.get("server_keep_alive", 1) == 1:
        one.expect_close(0x8D, seconds=4)


@v5("3.1.2-22")
@v3("3.1.2-24")
def test_keep_alive_is_kept_by_any_packet(client, topic):
    both = [client(level, keep_alive=1) for level in (4, 5)]
    for _ in range(4):
        let_pass(0.6)
        for one in both:
            one.publish(topic, qos=1)
    assert [one.settled() for one in both] == [[], []]


@v5("3.2.2-21")
def test_server_keep_alive_is_at_most_what_was_asked(client):
    assert client(keep_alive=60).connack.props.get("server_keep_alive", 60) <= 60


@v5("3.1.2-22")
@v3("3.1.2-24")
def test_keep_alive_zero_is_none(client):
    both = [client(level, keep_alive=0) for level in (4, 5)]
    let_pass(2)
    assert [one.settled() for one in both] == [[], []]


@v5("3.1.2-28")
@pytest.mark.parametrize("asked", ({}, {"request_response": 0}))
def test_no_response_information_unasked(client, asked):
    assert "response_information" not in client(props=asked).connack.props


TWICE = {
    "session_expiry": 0,
    "receive_maximum": 5,
    "maximum_packet_size": 1000,
    "topic_alias_maximum": 5,
    "request_response": 0,
    "request_problem": 1,
    "auth_method": "m",
}


@pytest.mark.parametrize("name", TWICE)
@v5("3.1.4-1", "3.1.4-2")
def test_property_of_connect_twice(raw, name):
    link = raw()
    link.send(connect("", props={name: [TWICE[name], TWICE[name]]}))
    link.refused(0x82, 0x81, 0x8C)


WRONG = {
    "receive maximum 0": {"receive_maximum": 0},
    "maximum packet size 0": {"maximum_packet_size": 0},
    "request response 2": {"request_response": 2},
    "request problem 2": {"request_problem": 2},
    "data without a method": {"auth_data": b"x"},
    "a property of PUBLISH": {"topic_alias": 1},
    "a property of CONNACK": {"server_keep_alive": 1},
    "an unknown property": {0x7E: b"x"},
    "cut short": b"\x11\0\0",
}


def wrong(case):
    marks = differs("mosquitto", "takes authentication data without a method") if case == "data without a method" else ()
    return pytest.param(case, marks=marks)


@pytest.mark.parametrize("case", map(wrong, WRONG))
@v5("3.1.4-1", "3.1.4-2")
def test_wrong_property_of_connect(raw, case):
    link = raw()
    link.send(connect("", props=WRONG[case]))
    link.refused(0x81, 0x82)


@v5("3.1.4-1")
def test_properties_longer_than_the_packet(raw):
    link = raw()
    link.send(body(5, 2, props=number(200)))
    link.refused(0x81, 0x82)


@pytest.mark.parametrize("props", ({"auth_method": "SCRAM-FIRTH"}, {"auth_method": "SCRAM-FIRTH", "auth_data": b"\0\1"}))
@v5("4.12.0-1")
def test_unknown_authentication_method(raw, props):
    link = raw()
    link.send(connect("", props=props))
    connack = link.refused(0x8C)
    assert connack is not None, "closed without saying why"


@v5("4.12.0-6")
def test_no_authentication_unasked(client):
    assert not {"auth_method", "auth_data"} & set(client().connack.props)


@v5("4.12.0-6", "3.15.1-1")
def test_auth_without_a_method_in_connect(client):
    one = client()
    one.send(packets.auth(0x19, {"auth_method": "m"}))
    one.expect_close(0x82)


@v5("3.2.2-9", "3.2.2-10", "3.2.2-12")
def test_maximum_qos(client, topic):
    one = client()
    allowed = one.limit("maximum_qos", 2)
    assert one.subscribe((topic, 2)).reasons[0] <= 2
    if allowed == 2:
        return
    one.send(publish(topic, b"x", allowed + 1, 7))
    one.expect_close(0x9B)


@v5("3.2.2-13", "3.2.2-14")
def test_retain_available(client, topic):
    one = client()
    if one.limit("retain_available", 1):
        one.publish(topic, b"kept", qos=1, retain=True)
        other = client()
        other.subscribe(topic)
        assert other.receive().retain
        one.publish(topic, b"", qos=1, retain=True)
        return
    one.send(publish(topic, b"x", retain=True))
    one.expect_close(0x9A)


@v5("3.2.2-15")
def test_servers_maximum_packet_size(client, topic):
    one = client()
    allowed = one.limit("maximum_packet_size", None)
    if allowed is None:
        pytest.skip("this broker names no maximum packet size")
    one.send(bytes([0x30]) + number(allowed))
    one.expect_close(0x95)


@v3("3.1.2-2", "3.1.3-5")
@v5("3.1.4-5")
def test_bridges_connect_with_the_high_bit_of_the_level(broker, raw):
    """Bridges of mosquitto set bit 0x80 of the level; a broker takes it for the level without it."""
    for level in (3, 4):
        link = raw(level)
        name = "MQIsdp" if level == 3 else "MQTT"
        link.send(body(level | 0x80, 2, text("bridge"), name=name))
        assert link.next("CONNACK").reason == 0
        link.send(packets.PINGREQ)
        link.next("PINGRESP")


@pytest.mark.parametrize("piece", (1, 3))
@v5("4.2.0-1")
@v3("7.1.1-1")
def test_packets_in_pieces(raw, level, topic, piece):
    link = raw(level)
    data = connect("", level) + subscribe(3, [(topic, 1)], level) + publish(topic, b"pieces", 1, 4, level=level)
    for at in range(0, len(data), piece):
        link.send(data[at : at + piece])
    link.next("CONNACK")
    link.expect("SUBACK", 3)
    assert link.expect("PUBLISH").payload == b"pieces"


@v5("4.2.0-1")
def test_user_and_password_are_taken(broker):
    one = Client(broker.address, 5, user="somebody", password=b"\0\xff", accept=False)
    assert one.next("CONNACK").reason in (0, 0x86, 0x87)
    one.socket.close()
