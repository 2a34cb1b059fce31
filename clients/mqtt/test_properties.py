"""Properties of PUBLISH in 5.0: passed through, expiring, aliases both ways, subscription identifiers, request and response."""

import pytest

from mqtt.link import let_pass
from mqtt.marks import differs, v5
from mqtt.packets import ack, publish, subscribe

QOS = pytest.mark.parametrize("qos", (0, 1, 2))
PASSED = {
    "payload format": {"payload_format": 1},
    "payload format 0": {"payload_format": 0},
    "content type": {"content_type": "text/plain; charset=\u00fctf"},
    "empty content type": {"content_type": ""},
    "response topic": {"response_topic": "answers/\u00e9/1"},
    "correlation data": {"correlation_data": bytes(range(256))},
    "empty correlation data": {"correlation_data": b""},
    "long correlation data": {"correlation_data": b"c" * 60000},
    "user properties": {"user": [("b", "1"), ("a", "2"), ("b", "1"), ("", ""), ("k", ""), ("", "v"), ("\U0001f980", "\u00e9")]},
    "a hundred user properties": {"user": [(f"k{at % 7}", str(at)) for at in range(100)]},
    "all": {
        "payload_format": 1,
        "content_type": "c",
        "response_topic": "r",
        "correlation_data": b"d",
        "user": [("x", "1"), ("x", "2")],
    },
}


@pytest.mark.parametrize("case", PASSED)
@QOS
@v5("3.3.2-4", "3.3.2-15", "3.3.2-16", "3.3.2-17", "3.3.2-18", "3.3.2-20", "1.5.7-1")
def test_passed_on_unaltered(client, topic, case, qos):
    one, publisher = client(), client()
    one.subscribe((topic, 2))
    publisher.publish(topic, "téxt".encode(), qos, props=PASSED[case])
    packet = one.receive()
    if case == "payload format 0":
        packet.props.setdefault("payload_format", 0)  # absent says the same
    assert packet.props == PASSED[case]


@v5("3.3.2-17", "3.3.2-18", "3.3.2-20")
def test_properties_wait_with_their_message(client, topic, name):
    kept = {"client_id": name, "clean": False, "props": {"session_expiry": 60}}
    one = client(**kept)
    one.subscribe((topic, 1))
    one.disconnect()
    client().publish(topic, b"x", 1, props=PASSED["all"])
    assert client(**kept).receive().props == PASSED["all"]


@v5("3.3.2-4")
def test_payload_that_is_not_the_text_it_claims_to_be(client, topic):
    """A broker may refuse it with 0x99; if it takes it, it passes it on as it is."""
    one, publisher = client(), client()
    one.subscribe((topic, 1))
    publisher.send(publish(topic, b"\xff\xfe", 1, 3, props={"payload_format": 1}))
    packet = publisher.read_or_closed()
    if packet is None or packet.kind != "PUBACK" or packet.reason:
        assert packet is None or packet.reason == 0x99
        return
    assert one.receive().payload == b"\xff\xfe"


@pytest.mark.parametrize("level", (4,))
@v5("3.3.2-17")
def test_between_versions(client, topic, level):
    old, fresh = client(level), client()
    old.subscribe((topic, 1))
    fresh.subscribe((topic, 1))
    fresh.publish(topic, b"5", 1, props=PASSED["all"])
    old.publish(topic, b"4", 1)
    assert old.payloads(2) == [b"5", b"4"]
    assert [fresh.receive().props for _ in range(2)] == [PASSED["all"], {}]


@pytest.mark.parametrize("bad", ("a/+", "a/#", "#"))
@v5("3.3.2-14")
@differs("mosquitto", "takes wildcards in a response topic")
def test_wildcards_in_a_response_topic(client, topic, bad):
    one = client()
    one.send(publish(topic, props={"response_topic": bad}))
    one.expect_close(0x81, 0x82, 0x90)


@v5("3.3.2-15", "3.3.2-16", "4.5.0-1")
def test_request_and_response(client, topic):
    asker, answerer = client(), client()
    asker.subscribe((f"{topic}/answers", 1))
    answerer.subscribe((f"{topic}/requests", 1))
    asker.publish(f"{topic}/requests", b"2+2", 1, props={"response_topic": f"{topic}/answers", "correlation_data": b"\0\1"})
    request = answerer.receive()
    answerer.publish(request.props["response_topic"], b"4", 1, props={"correlation_data": request.props["correlation_data"]})
    answer = asker.receive()
    assert (answer.payload, answer.props["correlation_data"]) == (b"4", b"\0\1")


# Expiry


@v5("3.3.2-6")
@QOS
def test_expiry_is_passed_on(client, topic, qos):
    one, publisher = client(), client()
    one.subscribe((topic, 2))
    publisher.publish(topic, b"x", qos, props={"message_expiry": 100})
    assert one.receive().props["message_expiry"] in (99, 100)


@v5("3.3.2-6", "3.3.2-5")
def test_expiry_counts_while_the_message_waits(client, topic, name):
    kept = {"client_id": name, "clean": False, "props": {"session_expiry": 60}}
    one = client(**kept)
    one.subscribe((topic, 1))
    one.disconnect()
    publisher = client()
    publisher.publish(topic, b"short", 1, props={"message_expiry": 1})
    publisher.publish(topic, b"long", 1, props={"message_expiry": 100})
    publisher.publish(topic, b"never", 1)
    let_pass(2.1)
    one = client(**kept)
    packet = one.receive()
    assert packet.payload == b"long" and 95 <= packet.props["message_expiry"] <= 98
    packet = one.receive()
    assert (packet.payload, packet.props) == (b"never", {})
    one.nothing_but(publisher)


@v5("3.3.2-5")
@differs("mosquitto", "stops where the next message behind a full window has expired")
def test_expiry_counts_behind_a_full_window(client, topic):
    """Connected, but with one message unacknowledged of one that is allowed: what waits behind it expires."""
    one, publisher = client(props={"receive_maximum": 1}), client()
    one.subscribe((topic, 1))
    publisher.publish(topic, b"first", 1)
    first = one.receive(settle=False)
    publisher.publish(topic, b"short", 1, props={"message_expiry": 1})
    publisher.publish(topic, b"long", 1, props={"message_expiry": 100})
    let_pass(2.1)
    one.send(ack("PUBACK", first.packet_id))
    packet = one.receive(4)
    assert packet.payload == b"long" and packet.props["message_expiry"] <= 98


@v5("3.3.2-5", "3.3.2-6")
@pytest.mark.parametrize("seconds", (pytest.param(0, marks=differs("mosquitto", "takes 0 for no expiry")), 0xFFFFFFFF))
def test_extreme_expiries(client, topic, seconds):
    one, publisher = client(), client()
    one.subscribe((topic, 1))
    publisher.publish(topic, b"edge", 1, props={"message_expiry": seconds})
    publisher.publish(topic, b"plain", 1)
    came = one.receive()
    if came.payload == b"edge":
        assert came.props["message_expiry"] in (seconds, seconds - 1)
        came = one.receive()
    else:
        assert seconds == 0
    assert came.payload == b"plain"


# Subscription identifiers


@pytest.mark.parametrize("number", (1, 127, 128, 16_384, 268_435_455))
@v5("3.3.4-3", "1.5.5-1")
def test_subscription_identifier(client, topic, number):
    one, publisher = client(), client()
    one.subscribe((topic, 1), props={"subscription_id": number})
    publisher.publish(topic, b"x", 1)
    assert one.receive().props["subscription_id"] == [number]


@v5("3.3.4-3", "3.8.4-3")
def test_subscription_identifier_is_replaced(client, topic):
    one = client()
    for props in ({"subscription_id": 1}, {"subscription_id": 2}, None):
        one.subscribe((topic, 1), props=props)
        one.publish(topic, b"x", 1)
        assert one.receive().props == ({"subscription_id": [props["subscription_id"]]} if props else {})


@v5("3.3.4-3", "3.3.4-4", "3.3.4-5")
def test_identifiers_of_overlapping_filters(client, topic):
    """One packet with all identifiers, or one packet for each filter with its own; a filter without one has none."""
    one = client()
    one.subscribe((f"{topic}/a", 1), props={"subscription_id": 1})
    one.subscribe((f"{topic}/+", 1), (f"{topic}/#", 1), props={"subscription_id": 2})
    one.subscribe((f"{topic}/a/#", 1))
    one.publish(f"{topic}/a", b"x", 1)
    came = one.settled()
    numbers = sorted(number for packet in came for number in packet.props.get("subscription_id", []))
    if len(came) == 1:
        assert numbers in ([1, 2], [1, 2, 2])
    else:
        assert numbers == [1, 2, 2] and len(came) == 4


@v5("3.3.4-4", "3.3.1-13")
def test_overlapping_filters_keep_the_flag_if_any_asked(client, topic):
    one = client()
    one.subscribe((f"{topic}/a", 1))
    one.subscribe((f"{topic}/+", 1 | 0x08))
    client().publish(f"{topic}/a", b"x", 1, retain=True)
    assert any(packet.retain for packet in one.settled())


WRONG_IDENTIFIERS = {
    "zero": {"subscription_id": 0},
    "twice": {"subscription_id": [1, 2]},
}


@pytest.mark.parametrize("case", WRONG_IDENTIFIERS)
@v5("4.13.1-1", "3.8.4-1")
def test_wrong_subscription_identifier(client, topic, case):
    one = client()
    one.send(subscribe(1, [(topic, 0)], props=WRONG_IDENTIFIERS[case]))
    one.expect_close(0x81, 0x82)


@v5("3.3.4-6", "4.13.1-1")
@differs("mosquitto", "takes a subscription identifier from a publisher")
def test_a_client_publishes_no_subscription_identifier(client, topic):
    one = client()
    one.send(publish(topic, props={"subscription_id": 1}))
    one.expect_close(0x81, 0x82)


# Topic aliases


@QOS
@v5("3.3.2-12", "3.2.2-17")
def test_alias_from_the_client(client, topic, qos):
    one, publisher = client(), client()
    highest = publisher.limit("topic_alias_maximum", 0)
    if not highest:
        pytest.skip("this broker takes no aliases")
    one.subscribe((f"{topic}/#", 2))
    for alias in (1, highest):
        publisher.publish(f"{topic}/{alias}", b"set", qos, props={"topic_alias": alias})
    for alias in (1, highest):
        publisher.publish("", b"used", qos, props={"topic_alias": alias})
    publisher.publish(f"{topic}/new", b"changed", qos, props={"topic_alias": 1})
    publisher.publish("", b"used", qos, props={"topic_alias": 1})
    came = [(packet.topic, packet.payload) for packet in one.receive_many(6)]
    assert came == [
        (f"{topic}/1", b"set"),
        (f"{topic}/{highest}", b"set"),
        (f"{topic}/1", b"used"),
        (f"{topic}/{highest}", b"used"),
        (f"{topic}/new", b"changed"),
        (f"{topic}/new", b"used"),
    ]


@v5("3.3.2-12")
def test_all_aliases_that_are_allowed(client, topic):
    one, publisher = client(), client()
    highest = min(publisher.limit("topic_alias_maximum", 0), 200)
    if not highest:
        pytest.skip("this broker takes no aliases")
    one.subscribe((f"{topic}/#", 1))
    for alias in range(1, highest + 1):
        publisher.publish(f"{topic}/{alias}", b"", 1, props={"topic_alias": alias})
    one.receive_many(highest)
    for alias in range(highest, 0, -1):
        publisher.publish("", b"", 1, props={"topic_alias": alias})
    assert [packet.topic for packet in one.receive_many(highest)] == [f"{topic}/{alias}" for alias in range(highest, 0, -1)]


@v5("3.3.2-8", "3.3.2-9", "3.2.2-17", "3.2.2-18")
@pytest.mark.parametrize("beyond", (0, 1, 65535))
def test_alias_that_is_not_allowed(client, topic, beyond):
    one = client()
    alias = 0 if beyond == 0 else min(one.limit("topic_alias_maximum", 0) + beyond, 65535)
    if alias == one.limit("topic_alias_maximum", 0) and beyond:
        pytest.skip("this broker takes every alias")
    one.send(publish(topic, props={"topic_alias": alias}))
    one.expect_close(0x94, 0x82, 0x81)


@v5("3.3.2-7", "3.3.2-12")
def test_alias_of_an_earlier_connection(client, topic, name):
    kept = {"client_id": name, "clean": False, "props": {"session_expiry": 60}}
    one = client(**kept)
    if not one.limit("topic_alias_maximum", 0):
        pytest.skip("this broker takes no aliases")
    one.publish(topic, b"x", 1, props={"topic_alias": 1})
    one.drop()
    one = client(**kept)
    one.send(publish("", b"x", 1, 5, props={"topic_alias": 1}))
    one.expect_close(0x82, 0x94)


@v5("3.3.2-12", "4.7.3-1")
def test_alias_that_was_not_set(client):
    one = client()
    one.send(publish("", props={"topic_alias": 1}))
    one.expect_close(0x82, 0x94)


@v5("3.3.2-7")
def test_alias_belongs_to_its_connection(client, topic):
    one, other = client(), client()
    if not one.limit("topic_alias_maximum", 0):
        pytest.skip("this broker takes no aliases")
    one.publish(topic, b"x", 1, props={"topic_alias": 1})
    other.send(publish("", props={"topic_alias": 1}))
    other.expect_close(0x82, 0x94)
    assert one.settled() == []


@v5("3.1.2-27", "3.3.2-11")
def test_no_alias_to_a_client_that_takes_none(client, topic):
    for props in ({}, {"topic_alias_maximum": 0}):
        one, publisher = client(props=props), client()
        one.subscribe((topic, 1))
        for _ in range(5):
            publisher.publish(topic, b"x", 1)
        assert all("topic_alias" not in packet.props and packet.topic == topic for packet in one.receive_many(5))


@pytest.mark.parametrize("highest", (1, 3, 65535))
@v5("3.1.2-26", "3.3.2-8", "3.3.2-10", "3.3.2-11", "3.3.2-3")
def test_aliases_to_the_client(client, topic, highest):
    """Whichever aliases the broker uses, they are allowed and resolve to the right topic."""
    one, publisher = client(props={"topic_alias_maximum": highest}), client()
    one.subscribe((f"{topic}/#", 2))
    wanted = [f"{topic}/{at % 5}" for at in range(30)]
    for at, each in enumerate(wanted):
        publisher.publish(each, b"x", at % 3)
    packets = one.receive_many(30)
    assert [packet.topic for packet in packets] == wanted
    assert all(packet.props.get("topic_alias", 1) <= highest for packet in packets)


@v5("3.3.2-7")
def test_aliases_to_the_client_start_anew(client, topic, name):
    kept = {"client_id": name, "clean": False, "props": {"session_expiry": 60, "topic_alias_maximum": 10}}
    one, publisher = client(**kept), client()
    one.subscribe((topic, 1))
    publisher.publish(topic, b"1", 1)
    publisher.publish(topic, b"2", 1)
    one.receive(), one.receive(settle=False)
    one.drop()
    one = client(**kept)
    packet = one.next("PUBLISH")
    assert (packet.topic, packet.payload, packet.dup) == (topic, b"2", True)
