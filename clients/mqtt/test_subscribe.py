"""SUBSCRIBE and UNSUBSCRIBE: answers, options, replacing, and overlapping filters."""

import pytest

from mqtt import packets
from mqtt.link import Client, Closed
from mqtt.marks import differs, v3, v5
from mqtt.packets import packet, subscribe, text, two, unsubscribe

NO_LOCAL, AS_PUBLISHED = 0x04, 0x08


def refused(one, *reasons):
    """A SUBACK that refuses its one filter, or an end of the connection: 5.0 allows both."""
    try:
        answer = one.expect("SUBACK")
    except Closed:
        assert all(packet.kind == "DISCONNECT" and packet.reason in reasons for packet in one.inbox)
        return
    assert answer.reasons[0] >= 0x80, answer


@v5("3.8.4-1", "3.8.4-2", "3.8.4-5", "3.8.4-6", "3.8.4-7", "3.9.3-1", "3.9.3-2")
@v3("3.8.4-1", "3.8.4-2", "3.8.4-4", "3.8.4-5", "3.9.3-1", "3.9.3-2")
def test_one_reason_for_each_filter_in_order(client, level, topic):
    one = client(level)
    wanted = [2, 0, 1, 1, 0, 2]
    answer = one.subscribe(*((f"{topic}/{at}", qos) for at, qos in enumerate(wanted)))
    assert answer.reasons == wanted
    for at, qos in enumerate(wanted):
        one.publish(f"{topic}/{at}", b"x", 2)
        assert one.receive().qos == qos


@v5("3.8.3-2")
@v3("3.8.3-3")
def test_subscribe_to_nothing(client, level):
    one = client(level)
    one.send(subscribe(1, [], level))
    one.expect_close(0x81, 0x82)


@v5("3.10.3-2")
@v3("3.10.3-2")
def test_unsubscribe_from_nothing(client, level):
    one = client(level)
    one.send(unsubscribe(1, [], level))
    one.expect_close(0x81, 0x82)


def options(level):
    return (0x03, 0x04, 0x08, 0x10, 0x40, 0x80, 0xFF) if level == 4 else (0x03, 0x30, 0x40, 0x80, 0xC0)


@pytest.mark.parametrize(("level", "bits"), [(level, bits) for level in (4, 5) for bits in options(level)])
@v5("3.8.3-5")
@v3("3.8.3-4")
def test_reserved_options(client, level, bits, topic):
    one = client(level)
    one.send(subscribe(1, [(topic, bits)], level))
    one.expect_close(0x81, 0x82)


@v5("3.8.3-1", "4.13.1-1")
@v3("3.8.3-1", "4.8.0-1")
def test_filter_without_options(client, level):
    one = client(level)
    one.send(packet("SUBSCRIBE", 2, two(1) + (b"\0" if level == 5 else b"") + text("a")))
    one.expect_close(0x81, 0x82)


@pytest.mark.parametrize("bad", ("", "a#", "a/#/b", "#/a", "a+", "+a", "a/b+/c", "##", "a/#b", "++"))
@v5("4.7.1-1", "4.7.1-2", "4.7.3-1")
@v3("4.7.1-2", "4.7.1-3", "4.7.3-1")
def test_bad_filters(client, level, bad):
    one = client(level)
    one.send(subscribe(1, [(bad, 0)], level))
    refused(one, 0x81, 0x82, 0x8F)


@v5("3.8.3-4")
@differs("mosquitto", "grants no-local on a shared subscription")
def test_no_local_on_a_shared_subscription(client, topic):
    one = client()
    one.send(subscribe(1, [(f"$share/g/{topic}", NO_LOCAL)]))
    one.expect_close(0x82)


@pytest.mark.parametrize("qos", (0, 1, 2))
@v5("3.8.3-3")
def test_no_local(client, topic, qos):
    one, other = client(), client()
    one.subscribe((topic, 2 | NO_LOCAL))
    one.publish(topic, b"own", qos)
    other.publish(topic, b"of another", qos)
    assert one.receive().payload == b"of another"
    assert one.settled() == []


@v5("3.8.3-3")
def test_no_local_goes_by_session(client, topic, name):
    """What a session published stays its own on its next connection."""
    kept = {"client_id": name, "clean": False, "props": {"session_expiry": 60}}
    one = client(**kept)
    one.subscribe((topic, 2 | NO_LOCAL))
    one.drop()
    one = client(**kept)
    one.publish(topic, b"own", 1)
    client().publish(topic, b"of another", 1)
    assert one.receive().payload == b"of another"
    assert one.settled() == []


@pytest.mark.parametrize("qos", (1, 2))
@v5("3.8.3-3")
@differs("mosquitto", "says nothing of it", always=False)
def test_no_local_of_what_an_earlier_connection_published(client, topic, name, qos):
    """What a session published itself does not come back with its next connection; what others publish does."""
    kept = {"client_id": name, "clean": False, "props": {"session_expiry": 60, "receive_maximum": 1}}
    one, other = client(**kept), client()
    one.subscribe((f"{topic}/+", 2 | NO_LOCAL))
    other.publish(f"{topic}/a", b"first", 1)
    held = one.receive(settle=False)
    # Behind one that is not acknowledged, so that nothing of it is settled before the connection ends.
    for at in range(5):
        one.publish(f"{topic}/a", b"own", qos)
        other.publish(f"{topic}/a", b"%d" % at, 1)
    one.drop()
    one = client(**kept)
    assert one.receive().payload == held.payload
    assert one.payloads(5) == [b"%d" % at for at in range(5)]
    one.nothing_but(other)


@v5("3.8.3-3")
def test_no_local_after_a_restart(own_broker, topic, name):
    server = own_broker()
    kept = {"client_id": name, "clean": False, "props": {"session_expiry": 60, "receive_maximum": 1}}
    one, other = Client(server.mqtt_address, **kept), Client(server.mqtt_address)
    one.subscribe((topic, 2 | NO_LOCAL))
    other.publish(topic, b"first", 1)
    one.receive(settle=False)
    one.publish(topic, b"own", 2)
    server.kill9()
    server.start()
    one, other = Client(server.mqtt_address, **kept), Client(server.mqtt_address)
    other.publish(topic, b"last", 1)
    assert one.payloads(2) == [b"first", b"last"]


@v5("3.8.3-3")
def test_local_unless_told_otherwise(client, topic):
    one = client()
    one.subscribe((topic, 2))
    one.publish(topic, b"own", 1)
    assert one.receive().payload == b"own"


@v5("3.8.4-3", "3.8.4-8")
@v3("3.8.4-3", "3.8.4-6")
def test_the_same_filter_replaces(client, level, topic):
    one = client(level)
    for qos in (2, 0, 1):
        assert one.subscribe((topic, qos)).reasons == [qos]
        one.publish(topic, b"x", 2)
        assert one.receive().qos == qos
        assert one.settled() == []
    one.unsubscribe(topic)
    one.publish(topic, b"y", 1)
    assert one.settled() == []


@v5("3.8.4-4", "3.8.4-3")
@v3("3.8.4-3")
def test_replacing_loses_nothing(client, level, topic):
    """A publisher that goes on while the filter is subscribed again and again."""
    one, publisher = client(level), client(level)
    one.subscribe((topic, 1))
    for at in range(40):
        one.send(subscribe(100 + at, [(topic, 1)], level))
        publisher.publish(topic, b"%d" % at, 1)
    assert one.payloads(40) == [b"%d" % at for at in range(40)]


@v5("3.8.4-5", "3.8.4-3")
@v3("3.8.4-4", "3.8.4-3")
def test_the_same_filter_twice_in_one_packet(client, level, topic):
    one = client(level)
    assert one.subscribe((topic, 2), (topic, 0)).reasons == [2, 0]
    one.publish(topic, b"x", 2)
    assert one.receive().qos == 0
    assert one.settled() == []


@v5("3.3.4-2", "3.3.4-4")
@v3("3.3.5-1")
@differs("mosquitto", "takes the QoS of the first filter it finds")
def test_overlapping_filters_give_the_highest_qos_once(client, level, topic):
    one = client(level)
    one.subscribe((f"{topic}/#", 1), (f"{topic}/+", 2), (f"{topic}/a", 0))
    one.publish(f"{topic}/a", b"x", 2)
    assert one.receive().qos == 2
    assert one.settled() == []


@v5("3.10.4-1", "3.10.4-4", "3.11.3-1", "3.11.3-2", "3.10.4-2", "3.10.4-6")
@v3("3.10.4-1", "3.10.4-4", "3.10.4-6")
def test_unsubscribe(client, level, topic):
    one = client(level)
    one.subscribe((f"{topic}/a", 1), (f"{topic}/b", 1), (f"{topic}/c", 1))
    answer = one.unsubscribe(f"{topic}/a", f"{topic}/x", f"{topic}/c")
    assert answer.reasons == ([0, 0x11, 0] if level == 5 else [])
    for letter in "abc":
        one.publish(f"{topic}/{letter}", letter.encode(), 1)
    assert one.receive().payload == b"b"
    assert one.settled() == []


@v5("3.10.4-5", "3.11.3-2")
@v3("3.10.4-5")
def test_unsubscribe_from_what_is_not_subscribed(client, level, topic):
    answer = client(level).unsubscribe(topic)
    assert answer.reasons == ([0x11] if level == 5 else [])


@v5("3.10.4-1")
@v3("3.10.4-1")
@pytest.mark.parametrize("other", ("{}/a", "{}/+", "{}", "{}/#/", "{}/A"))
def test_unsubscribe_compares_byte_for_byte(client, level, topic, other):
    one = client(level)
    one.subscribe((f"{topic}/#", 1))
    filter = other.format(topic)
    if "#/" not in filter:
        one.unsubscribe(filter)
    one.publish(f"{topic}/a", b"x", 1)
    assert one.receive().payload == b"x"


@v5("3.10.4-6", "3.11.3-1")
@v3("3.10.4-6")
def test_the_same_filter_twice_in_one_unsubscribe(client, level, topic):
    one = client(level)
    one.subscribe(topic)
    assert one.unsubscribe(topic, topic).reasons == ([0, 0x11] if level == 5 else [])


@v5("3.10.4-2")
@v3("3.10.4-2")
def test_nothing_new_behind_unsuback(client, level, topic):
    one, publisher = client(level), client(level)
    one.subscribe((topic, 1))
    for at in range(20):
        publisher.publish(topic, b"%d" % at, 1)
    one.unsubscribe(topic)
    one.inbox.clear()
    publisher.publish(topic, b"late", 1)
    assert b"late" not in [each.payload for each in one.settled()]


@v5("3.8.4-1", "3.10.4-4")
@v3("3.8.4-1")
def test_a_hundred_filters_in_one_packet(client, level, topic):
    one = client(level)
    assert len(one.subscribe(*((f"{topic}/{at}", at % 3) for at in range(100))).reasons) == 100
    one.publish(f"{topic}/99", b"x", 1)
    assert one.receive().topic == f"{topic}/99"
    answer = one.unsubscribe(*(f"{topic}/{at}" for at in range(100)))
    assert level == 4 or answer.reasons == [0] * 100


@v5("4.7.3-3")
@v3("4.7.3-3")
def test_hostile_filters_are_taken_or_refused_by_their_answer(client, level):
    """65,535 bytes on one level, and 32,767 levels: refused with a reason, or with an end that names it, and nobody else is harmed."""
    other = client(level)
    for filter in ("a" * 65535, "/" * 32767, "+/" * 32767 + "#"):
        one = client(level)
        one.send(subscribe(1, [(filter, 0)], level))
        try:
            one.expect("SUBACK")
        except Closed:
            assert all(packet.reason in (0x81, 0x82, 0x8F, 0x97) for packet in one.inbox)
    assert other.settled() == []


@v5("3.8.3-5", "3.8.4-7")
@pytest.mark.parametrize("bits", (0x00, 0x04, 0x08, 0x0C, 0x10, 0x20, 0x2E, 0x1D))
def test_allowed_options(client, topic, bits):
    assert client().subscribe((topic, bits)).reasons == [bits & 3]


@v5("3.8.4-1")
def test_user_properties_of_subscribe_and_unsubscribe(client, topic):
    one = client()
    one.subscribe(topic, props={"user": [("a", "1"), ("a", "2")]})
    one.send(unsubscribe(77, [topic], props={"user": [("b", "3")]}))
    assert one.expect("UNSUBACK", 77).reasons == [0]
    one.send(packets.PINGREQ)
    one.next("PINGRESP")
