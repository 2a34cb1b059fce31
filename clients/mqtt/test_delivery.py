"""PUBLISH to a client: acknowledgements of every kind, what is sent again and what never, and in which order."""

import pytest

from mqtt.link import let_pass
from mqtt.marks import differs, v3, v5
from mqtt.packets import ack, subscribe


@pytest.fixture
def kept(client, name, level):
    """Connects the same persistent session each time; what was in flight is not removed by the fixture `client` before the end."""

    def make(**props):
        return client(level, client_id=name, clean=False, props={"session_expiry": 60, **props})

    return make


@pytest.fixture
def publisher(client, level):
    return client(level)


@v5("4.4.0-1", "3.3.1-1", "4.6.0-1", "4.6.0-5", "4.3.2-3", "2.2.1-4", "3.1.2-5")
@v3("4.4.0-1", "3.3.1-1", "4.6.0-1", "4.3.2-1", "2.3.1-3", "2.3.1-4", "3.1.2-4")
def test_unacknowledged_qos_1_again(kept, publisher, topic):
    one = kept()
    one.subscribe((topic, 1))
    for at in range(5):
        publisher.publish(topic, b"%d" % at, 1)
    first = [one.receive(settle=False) for _ in range(5)]
    one.send(ack("PUBACK", first[1].packet_id))
    one.settled()
    one.drop()
    one = kept()
    again = [one.receive() for _ in range(4)]
    assert [(packet.payload, packet.packet_id, packet.dup) for packet in again] == [
        (packet.payload, packet.packet_id, True) for packet in first if packet.payload != b"1"
    ]
    one.nothing_but(publisher)


@v5("4.4.0-1", "4.3.3-3", "4.3.3-4", "4.6.0-1")
@v3("4.4.0-1", "4.3.3-1", "4.6.0-1")
def test_qos_2_again_before_pubrec(kept, publisher, topic):
    one = kept()
    one.subscribe((topic, 2))
    publisher.publish(topic, b"1", 2)
    publisher.publish(topic, b"2", 2)
    first = [one.receive(settle=False) for _ in range(2)]
    one.drop()
    one = kept()
    for packet in first:
        again = one.next("PUBLISH")
        assert (again.payload, again.packet_id, again.dup, again.qos) == (packet.payload, packet.packet_id, True, 2)
    for packet in first:
        one.send(ack("PUBREC", packet.packet_id))
        one.expect("PUBREL", packet.packet_id)
        one.send(ack("PUBCOMP", packet.packet_id))
    one.nothing_but(publisher)


@v5("4.4.0-1", "4.3.3-5", "4.3.3-6")
@v3("4.4.0-1", "4.3.3-1")
def test_pubrel_again_and_not_publish(kept, publisher, topic):
    """Behind PUBREC it is the PUBRELs that come again, in their order."""
    one = kept()
    one.subscribe((topic, 2))
    for payload in (b"1", b"2", b"3"):
        publisher.publish(topic, payload, 2)
    first = [one.receive(settle=False).packet_id for _ in range(3)]
    for packet_id in first:
        one.send(ack("PUBREC", packet_id))
        one.expect("PUBREL", packet_id)
    one.drop()
    one = kept()
    assert [one.next("PUBREL").packet_id for _ in range(3)] == first
    for packet_id in first:
        one.send(ack("PUBCOMP", packet_id))
    one.nothing_but(publisher)
    one.drop()
    assert kept().settled() == []


@v5("4.4.0-1", "4.3.3-6")
@v3("4.4.0-1", "4.3.3-1")
def test_each_step_where_it_was(kept, publisher, topic):
    """One message finished, one behind PUBREC, one not yet there."""
    one = kept()
    one.subscribe((topic, 2))
    for payload in (b"1", b"2", b"3"):
        publisher.publish(topic, payload, 2)
    one.receive()
    second, third = one.receive(settle=False), one.receive(settle=False)
    one.send(ack("PUBREC", second.packet_id))
    one.expect("PUBREL", second.packet_id)
    one.settled()
    one.drop()
    one = kept()
    assert one.expect("PUBREL").packet_id == second.packet_id
    assert one.expect("PUBLISH").packet_id == third.packet_id
    assert one.settled() == []


@v5("4.4.0-1")
@v3("4.4.0-1")
def test_nothing_again_on_the_same_connection(client, topic):
    both = [client(level) for level in (4, 5)]
    for one in both:
        one.subscribe((topic, 2))
    client().publish(topic, b"x", 1)
    client().publish(topic, b"y", 2)
    for one in both:
        one.receive(settle=False), one.receive(settle=False)
    let_pass(2)
    assert [one.settled() for one in both] == [[], []]


@v5("4.4.0-2", "3.4.2-1")
@pytest.mark.parametrize("reason", (0x80, 0x83, 0x87, 0x91, 0x97, 0x99))
def test_negative_puback_settles(client, topic, name, reason):
    kept = {"client_id": name, "clean": False, "props": {"session_expiry": 60}}
    one, publisher = client(**kept), client()
    one.subscribe((topic, 1))
    publisher.publish(topic, b"x", 1)
    one.send(ack("PUBACK", one.receive(settle=False).packet_id, reason))
    assert one.settled() == []
    one.drop()
    assert client(**kept).settled() == []


@v5("4.4.0-2", "3.5.2-1", "4.3.3-9")
@pytest.mark.parametrize("reason", (0x80, 0x83, 0x97))
def test_negative_pubrec_settles(client, topic, name, reason):
    kept = {"client_id": name, "clean": False, "props": {"session_expiry": 60}}
    one, publisher = client(**kept), client()
    one.subscribe((topic, 2))
    publisher.publish(topic, b"x", 2)
    one.send(ack("PUBREC", one.receive(settle=False).packet_id, reason))
    assert one.settled() == [], "no PUBREL after a negative PUBREC"
    one.drop()
    assert client(**kept).settled() == []


@v5("3.4.2-1", "3.5.2-1", "3.7.2-1")
@pytest.mark.parametrize("form", ((0, None), (0, {}), (0x10, None), (0, {"reason_string": "thanks", "user": [("k", "v")]})))
def test_forms_of_acknowledgements(client, topic, form):
    one, publisher = client(), client()
    one.subscribe((topic, 2))
    publisher.publish(topic, b"1", 1)
    one.send(ack("PUBACK", one.receive(settle=False).packet_id, *form))
    publisher.publish(topic, b"2", 2)
    packet_id = one.receive(settle=False).packet_id
    one.send(ack("PUBREC", packet_id, *form))
    one.expect("PUBREL", packet_id)
    one.send(ack("PUBCOMP", packet_id, 0, form[1]))
    publisher.publish(topic, b"3", 1)
    assert one.receive().payload == b"3"


@v5("3.6.2-1", "4.3.3-4")
def test_pubrec_of_an_unknown_identifier(client):
    """Answered by a PUBREL that says so (0x92), or an end with 0x82: never by silence."""
    one = client()
    one.send(ack("PUBREC", 999))
    packet = one.read_or_closed()
    assert packet is None or (packet.kind, packet.reason) in (("PUBREL", 0x92), ("PUBREL", 0), ("DISCONNECT", 0x82))


@pytest.mark.parametrize("kind", ("PUBACK", "PUBCOMP"))
@v5("3.4.2-1", "3.7.2-1")
@v3("4.8.0-1")
def test_acknowledgement_of_nothing(client, level, kind):
    """Not asked for: ignored, or the connection ends; nothing is sent in answer."""
    one = client(level)
    one.send(ack(kind, 999))
    packet = one.read_or_closed()
    assert packet is None or packet.kind == "PINGRESP" or (packet.kind, packet.reason) == ("DISCONNECT", 0x82)


@v5("4.3.3-4", "4.3.3-3")
@v3("4.3.3-1")
def test_pubrec_again(client, publisher, level, topic):
    """A second PUBREC for the same packet is answered by PUBREL again; then PUBCOMP ends it."""
    one = client(level)
    one.subscribe((topic, 2))
    publisher.publish(topic, b"x", 2)
    packet_id = one.receive(settle=False).packet_id
    one.send(ack("PUBREC", packet_id))
    one.expect("PUBREL", packet_id)
    one.send(ack("PUBREC", packet_id))
    one.expect("PUBREL", packet_id)
    one.send(ack("PUBCOMP", packet_id))
    one.nothing_but(publisher)


@v5("3.10.4-2", "3.10.4-3")
@v3("3.10.4-2", "3.10.4-3")
def test_in_flight_is_finished_after_unsubscribe(kept, publisher, topic):
    one = kept()
    one.subscribe((topic, 2))
    publisher.publish(topic, b"1", 1)
    publisher.publish(topic, b"2", 2)
    first = [one.receive(settle=False) for _ in range(2)]
    one.unsubscribe(topic)
    publisher.publish(topic, b"3", 2)
    one.drop()
    one = kept()
    again = [one.receive() for _ in range(2)]
    assert [(packet.payload, packet.packet_id) for packet in again] == [(packet.payload, packet.packet_id) for packet in first]
    one.nothing_but(publisher)


@v5("3.8.4-1", "4.3.2-4")
@v3("3.8.4-1", "4.3.2-1")
def test_subscribed_again_with_the_last_acknowledgement(kept, publisher, level, topic):
    """What waited for the end of a message in flight to be unsubscribed is subscribed to again behind that message's PUBACK, at once."""
    one = kept()
    one.subscribe((topic, 1))
    publisher.publish(topic, b"1", 1)
    packet_id = one.receive(settle=False).packet_id
    one.unsubscribe(topic)
    one.send(ack("PUBACK", packet_id) + subscribe(99, [(topic, 1)], level))
    one.expect("SUBACK", 99)
    publisher.publish(topic, b"2", 1)
    assert one.receive().payload == b"2"


@v5("4.3.3-7", "4.3.3-13", "3.3.2-5")
@differs("mosquitto", "drops an expired message that is in flight")
def test_expiry_does_not_stop_what_was_sent(client, topic, name):
    """Sent, then expired: the flow of QoS 2 goes on to its end, on the next connection too."""
    kept = {"client_id": name, "clean": False, "props": {"session_expiry": 60}}
    one, publisher = client(**kept), client()
    one.subscribe((topic, 2))
    publisher.publish(topic, b"x", 2, props={"message_expiry": 1})
    packet_id = one.receive(settle=False).packet_id
    one.send(ack("PUBREC", packet_id))
    one.expect("PUBREL", packet_id)
    one.settled()
    one.drop()
    let_pass(2.1)
    one = client(**kept)
    assert one.expect("PUBREL", seconds=4).packet_id == packet_id
    one.send(ack("PUBCOMP", packet_id))
    assert one.settled() == []


@v5("4.5.0-1", "3.1.2-5", "3.1.2-23", "4.6.0-5")
@v3("3.1.2-4", "3.1.2-5", "4.5.0-1", "4.6.0-6")
def test_offline_messages_in_order(kept, publisher, topic):
    one = kept()
    one.subscribe((topic, 2))
    one.disconnect()
    wanted = [b"%d" % at for at in range(50)]
    for at, payload in enumerate(wanted):
        publisher.publish(topic, payload, 1 + at % 2)
    one = kept()
    packets = one.receive_many(50)
    assert [packet.payload for packet in packets] == wanted
    assert not any(packet.dup for packet in packets)
    one.nothing_but(publisher)


@v5("4.5.0-1")
@v3("4.5.0-1")
def test_new_messages_behind_those_sent_again(kept, publisher, topic):
    one = kept()
    one.subscribe((topic, 1))
    publisher.publish(topic, b"1", 1)
    one.receive(settle=False)
    one.drop()
    publisher.publish(topic, b"2", 1)
    assert kept().payloads(2) == [b"1", b"2"]


@v5("3.1.2-4", "3.3.1-1")
@v3("3.1.2-6")
def test_clean_start_forgets_what_was_in_flight(client, publisher, kept, level, topic, name):
    one = kept()
    one.subscribe((topic, 2))
    publisher.publish(topic, b"x", 1)
    publisher.publish(topic, b"y", 2)
    one.receive(settle=False), one.receive(settle=False)
    one.drop()
    one = client(level, client_id=name)
    assert not one.connack.session_present
    one.nothing_but(publisher)
