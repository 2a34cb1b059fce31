"""Sessions: clean or resumed, how long they last, who takes over whom, and what survives a restart."""

import pytest

from mqtt import packets
from mqtt.link import Client, let_pass
from mqtt.marks import differs, v3, v5

KEPT = {"clean": False, "props": {"session_expiry": 60}}


@v5("3.1.2-5", "3.1.2-6", "3.1.2-23", "3.1.3-2", "3.2.2-3", "4.1.0-1")
@v3("3.1.2-4", "3.2.2-2", "3.2.2-3", "3.1.3-2", "3.1.4-3", "4.1.0-1", "4.1.0-2")
def test_session_present(client, level, name):
    one = client(level, client_id=name, **KEPT)
    assert not one.connack.session_present
    one.disconnect()
    assert client(level, client_id=name, **KEPT).connack.session_present
    assert not client(level, client_id=f"{name}x", **KEPT).connack.session_present


@v5("3.1.2-4", "3.2.2-2", "3.1.4-4")
@v3("3.1.2-6", "3.2.2-1", "3.1.4-3")
def test_clean_start_discards(client, level, topic, name):
    one = client(level, client_id=name, **KEPT)
    one.subscribe((topic, 1))
    one.disconnect()
    publisher = client(level)
    publisher.publish(topic, b"offline", 1)
    one = client(level, client_id=name)
    assert not one.connack.session_present
    publisher.publish(topic, b"later", 1)
    assert one.settled() == []
    one.disconnect()
    assert not client(level, client_id=name, **KEPT).connack.session_present


@v5("3.1.2-5", "4.1.0-1")
@v3("3.1.2-4", "4.1.0-1")
def test_subscriptions_are_resumed_with_all_they_are(client, level, topic, name):
    one = client(level, client_id=name, **KEPT)
    one.subscribe((f"{topic}/+", 1), (f"{topic}/a/#", 2))
    one.unsubscribe(f"{topic}/a/#")
    one.disconnect()
    one = client(level, client_id=name, **KEPT)
    publisher = client(level)
    publisher.publish(f"{topic}/a", b"x", 2)
    publisher.publish(f"{topic}/a/b", b"y", 2)
    packet = one.receive()
    assert (packet.payload, packet.qos) == (b"x", 1)
    assert one.settled() == []


@v5("3.1.2-5", "3.3.1-13", "3.3.4-3", "3.8.3-3")
def test_options_and_identifiers_are_resumed(client, topic, name):
    one = client(client_id=name, **KEPT)
    one.subscribe((topic, 0x02 | 0x04 | 0x08), props={"subscription_id": 77})
    one.disconnect()
    one = client(client_id=name, **KEPT)
    one.publish(topic, b"own", 1)
    client().publish(topic, b"x", 1, retain=True)
    packet = one.receive()
    assert (packet.payload, packet.retain, packet.props["subscription_id"]) == (b"x", True, [77])


@v5("4.5.0-1", "3.1.2-23")
@v3("3.1.2-5", "4.5.0-1")
def test_qos_0_is_not_queued_for_the_offline(client, level, topic, name):
    """The standard leaves QoS 0 to the broker; of what was published in QoS 1 nothing is missing."""
    one = client(level, client_id=name, **KEPT)
    one.subscribe((f"{topic}/0", 0), (f"{topic}/1", 1))
    one.disconnect()
    publisher = client(level)
    publisher.publish(f"{topic}/1", b"0", 0)
    publisher.publish(f"{topic}/1", b"1", 1)
    publisher.publish(f"{topic}/0", b"2", 1)
    publisher.publish(f"{topic}/1", b"3", 2)
    one = client(level, client_id=name, **KEPT)
    came = [packet.payload for packet in one.settled()]
    assert [payload for payload in came if payload in (b"1", b"3")] == [b"1", b"3"]


@v5("4.1.0-2", "3.1.2-23")
def test_session_expires(client, topic, name):
    one = client(client_id=name, clean=False, props={"session_expiry": 1})
    one.subscribe((topic, 1))
    one.disconnect()
    let_pass(2.6)
    assert not client(client_id=name, **KEPT).connack.session_present


@v5("4.1.0-1")
def test_session_does_not_expire_while_connected(client, topic, name):
    one = client(client_id=name, clean=False, props={"session_expiry": 1})
    one.subscribe((topic, 1))
    let_pass(2.6)
    client().publish(topic, b"x", 1)
    assert one.receive().payload == b"x"


@v5("4.1.0-2", "3.1.2-23")
@pytest.mark.parametrize("props", ({}, {"session_expiry": 0}))
def test_session_ends_with_its_connection(client, topic, name, props):
    one = client(client_id=name, clean=False, props=props)
    one.subscribe((topic, 1))
    one.disconnect()
    assert not client(client_id=name, clean=False).connack.session_present


@v5("4.1.0-2", "3.1.2-23")
def test_longest_session_expiry(client, topic, name):
    """0xFFFFFFFF never expires; a broker that allows less says so in CONNACK."""
    one = client(client_id=name, clean=False, props={"session_expiry": 0xFFFFFFFF})
    assert one.limit("session_expiry", 0xFFFFFFFF) > 0
    one.disconnect()
    assert client(client_id=name, clean=False).connack.session_present


@v5("4.1.0-2")
def test_disconnect_changes_the_expiry(client, name):
    one = client(client_id=name, clean=False, props={"session_expiry": 1})
    one.disconnect(0, {"session_expiry": 60})
    let_pass(2.6)
    one = client(client_id=name, **KEPT)
    assert one.connack.session_present
    one.disconnect(0, {"session_expiry": 0})
    assert not client(client_id=name, **KEPT).connack.session_present


@v5("3.14.2-2", "4.13.1-1")
def test_disconnect_cannot_make_a_session_of_none(client):
    one = client()
    one.send(packets.disconnect(0, {"session_expiry": 10}))
    one.expect_close(0x82)


@v5("3.1.2-5", "4.1.0-2")
def test_reconnecting_sets_the_expiry_anew(client, name):
    client(client_id=name, clean=False, props={"session_expiry": 1}).disconnect()
    client(client_id=name, clean=False, props={"session_expiry": 60}).disconnect()
    let_pass(2.6)
    assert client(client_id=name, clean=False).connack.session_present


@v5("3.1.4-3", "4.13.2-1", "3.14.4-1", "3.14.4-2")
@differs("mosquitto", "gives no reason to a connection that is taken over by a clean start")
def test_taken_over(client, name):
    old = client(client_id=name)
    new = client(client_id=name)
    last = old.expect_close(0x8E)
    assert last is not None, "closed without saying why"
    assert new.settled() == []


@v3("3.1.4-2")
def test_taken_over_3_1_1(client, name):
    old = client(4, client_id=name)
    new = client(4, client_id=name)
    assert old.expect_close() is None
    assert new.settled() == []


@v5("3.1.4-3", "3.1.2-5")
@v3("3.1.4-2", "3.1.2-4")
def test_taken_over_with_its_session(client, level, topic, name):
    old = client(level, client_id=name, **KEPT)
    old.subscribe((topic, 1))
    publisher = client(level)
    publisher.publish(topic, b"1", 1)
    first = old.receive(settle=False)
    new = client(level, client_id=name, **KEPT)
    assert new.connack.session_present
    old.expect_close(0x8E)
    again = new.receive()
    assert (again.payload, again.packet_id, again.dup) == (b"1", first.packet_id, True)
    publisher.publish(topic, b"2", 1)
    assert new.receive().payload == b"2"


@v5("3.1.4-3", "3.1.2-4")
@v3("3.1.4-2", "3.1.2-6")
def test_taken_over_by_a_clean_start(client, level, topic, name):
    old = client(level, client_id=name, **KEPT)
    old.subscribe((topic, 1))
    new = client(level, client_id=name)
    assert not new.connack.session_present
    old.expect_close(0x8E)
    client(level).publish(topic, b"x", 1)
    assert new.settled() == []


@v5("3.1.4-3")
@v3("3.1.4-2")
def test_taken_over_by_the_other_version(client, level, topic, name):
    """One session for a client id, whichever version it speaks."""
    old = client(level, client_id=name, **KEPT)
    old.subscribe((topic, 1))
    new = client(9 - level, client_id=name, **KEPT)
    assert new.connack.session_present
    old.expect_close(0x8E)
    client(level).publish(topic, b"x", 1)
    assert new.receive().payload == b"x"


@v5("3.1.4-3")
@v3("3.1.4-2")
def test_a_chain_of_takeovers(client, level, name):
    chain = [client(level, client_id=name, **KEPT) for _ in range(8)]
    for old in chain[:-1]:
        old.expect_close(0x8E)
    assert chain[-1].settled() == []


@v5("3.1.4-3", "4.3.2-4")
@v3("3.1.4-2", "4.3.2-2")
def test_what_was_published_before_a_takeover_is_there(client, level, topic, name):
    subscriber = client(level)
    subscriber.subscribe((topic, 1))
    old = client(level, client_id=name)
    old.send(*(packets.publish(topic, b"%d" % at, 1, at + 1, level=level) for at in range(10)))
    old.expect("PUBACK", 10)
    client(level, client_id=name)
    assert subscriber.payloads(10) == [b"%d" % at for at in range(10)]


@v5("3.1.2-6", "3.2.2-3")
@v3("3.2.2-3", "3.1.2-4")
def test_client_ids_are_told_apart_by_every_letter(client, level, name):
    client(level, client_id=f"{name}a", **KEPT).disconnect()
    assert not client(level, client_id=f"{name}A", **KEPT).connack.session_present
    assert client(level, client_id=f"{name}a", **KEPT).connack.session_present


@v5("3.1.2-5", "3.1.2-23", "4.1.0-1", "4.4.0-1")
@v3("3.1.2-4", "3.1.2-5", "4.1.0-1", "4.4.0-1")
def test_restart_of_the_broker(own_broker, level, topic, name):
    """Subscriptions, what waits, what is in flight and its step of QoS 2: all there after an orderly stop."""
    broker = own_broker()
    one = Client(broker.mqtt_address, level, client_id=name, **KEPT)
    one.subscribe((topic, 2))
    publisher = Client(broker.mqtt_address, level)
    for at, qos in enumerate((1, 2, 2)):
        publisher.publish(topic, b"%d" % at, qos)
    first, second, third = (one.receive(settle=False) for _ in range(3))
    one.send(packets.ack("PUBREC", second.packet_id))
    one.expect("PUBREL", second.packet_id)
    one.settled()
    one.drop()
    publisher.publish(topic, b"3", 1)
    broker.restart()
    one = Client(broker.mqtt_address, level, client_id=name, **KEPT)
    assert one.connack.session_present
    assert one.expect("PUBREL").packet_id == second.packet_id
    came = [one.receive(settle=False) for _ in range(3)]
    assert [packet.payload for packet in came] == [b"0", b"2", b"3"]
    assert [packet.packet_id for packet in came[:2]] == [first.packet_id, third.packet_id]
    assert [packet.dup for packet in came] == [True, True, False]
    Client(broker.mqtt_address, level).publish(topic, b"4", 1)
    assert one.receive().payload == b"4"


@v5("4.3.3-10", "3.1.2-23")
@v3("4.3.3-2", "3.1.2-4")
def test_restart_between_pubrec_and_pubrel(own_broker, level, topic, name):
    broker = own_broker()
    watcher = Client(broker.mqtt_address, level, client_id=f"{name}w", **KEPT)
    watcher.subscribe((topic, 2))
    one = Client(broker.mqtt_address, level, client_id=name, **KEPT)
    one.send(packets.publish(topic, b"once", 2, 5, level=level))
    one.expect("PUBREC", 5)
    broker.restart()
    watcher = Client(broker.mqtt_address, level, client_id=f"{name}w", **KEPT)
    one = Client(broker.mqtt_address, level, client_id=name, **KEPT)
    assert one.connack.session_present
    one.send(packets.publish(topic, b"once", 2, 5, dup=True, level=level))
    one.expect("PUBREC", 5)
    one.send(packets.ack("PUBREL", 5))
    one.expect("PUBCOMP", 5)
    assert watcher.receive().payload == b"once"
    watcher.nothing_but(one)


@v5("4.1.0-2")
@differs("mosquitto", "counts the expiry anew after a restart", always=False)
def test_expiry_goes_on_over_a_restart(own_broker, topic, name):
    broker = own_broker()
    one = Client(broker.mqtt_address, client_id=name, clean=False, props={"session_expiry": 2})
    one.subscribe((topic, 1))
    one.disconnect()
    let_pass(2)
    broker.restart()
    let_pass(1.6)
    assert not Client(broker.mqtt_address, client_id=name, **KEPT).connack.session_present


@v5("3.14.4-1", "3.14.4-2")
@v3("3.14.4-1", "3.14.4-2")
def test_nothing_behind_disconnect_is_done(client, level, topic):
    watcher, one = client(level), client(level)
    watcher.subscribe((topic, 1))
    one.send(packets.disconnect(), packets.publish(topic, b"late", 1, 1, level=level), packets.PINGREQ)
    assert one.expect_close() is None
    watcher.nothing_but(client(level))


@v3("3.14.1-1")
def test_disconnect_of_3_1_1_has_no_body(client):
    one = client(4)
    one.send(packets.disconnect(0))
    assert one.expect_close() is None


@v5("4.4.0-1")
def test_what_was_acknowledged_before_coming_back_does_not_come_again(client, topic, name):
    """A client that acknowledges and comes back at once: what its old connection had sent by then counts."""
    kept = {"client_id": name, "clean": False, "props": {"session_expiry": 60}}
    one, publisher = client(**kept), client()
    one.subscribe((topic, 1))
    for number in range(100):
        publisher.publish(topic, b"%d" % number, 1)
        assert one.receive().payload == b"%d" % number, "acknowledged before"
        one = client(**kept)
