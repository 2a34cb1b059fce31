"""Wills: when they are published and when not, with which flags and properties, and after which delay."""

import time

import pytest

from mqtt import packets
from mqtt.link import Client, let_pass
from mqtt.marks import differs, v3, v5
from mqtt.packets import Will

QOS = pytest.mark.parametrize("qos", (0, 1, 2))


@QOS
@pytest.mark.parametrize("level", (3, 4, 5))
@v5("3.1.2-7", "3.1.2-8", "3.1.2-9", "3.1.2-14")
@v3("3.1.2-8", "3.1.2-9", "3.1.2-16")
def test_published_when_the_network_fails(client, level, topic, qos):
    watcher = client(level)
    watcher.subscribe((topic, 2))
    one = client(level, will=Will(topic, b"last words", qos))
    one.drop()
    packet = watcher.receive()
    assert (packet.payload, packet.qos, packet.retain) == (b"last words", qos, False)
    watcher.nothing_but(client(level))


@v5("3.14.4-3", "3.1.2-10", "3.14.4-2")
@v3("3.14.4-3", "3.1.2-10", "3.14.4-1")
def test_not_published_after_disconnect(client, level, topic):
    watcher = client(level)
    watcher.subscribe((topic, 2))
    client(level, will=Will(topic)).disconnect()
    watcher.nothing_but(client(level))


@v5("3.14.4-3")
def test_not_published_after_disconnect_zero(client, topic):
    watcher = client()
    watcher.subscribe((topic, 2))
    client(will=Will(topic)).disconnect(0)
    watcher.nothing_but(client())


@v5("3.1.2-8", "3.14.2-1")
def test_published_after_disconnect_with_will(client, topic):
    watcher = client()
    watcher.subscribe((topic, 2))
    client(will=Will(topic, b"last words")).disconnect(0x04)
    assert watcher.receive().payload == b"last words"


@v5("3.1.2-8", "3.14.2-1")
@differs("mosquitto", "publishes a will only for 0x04 and the end of the network")
def test_published_after_disconnect_with_any_other_reason(client, topic):
    watcher = client()
    watcher.subscribe((topic, 2))
    for reason in (0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99):
        client(will=Will(topic, b"%d" % reason)).disconnect(reason)
        assert watcher.receive(3).payload == b"%d" % reason


@v5("3.1.2-8")
@v3("3.1.2-8", "3.1.2-24")
def test_published_when_keep_alive_ends(client, level, topic):
    watcher = client(level)
    watcher.subscribe((topic, 2))
    client(level, keep_alive=1, will=Will(topic, b"last words"))
    assert watcher.receive().payload == b"last words"


@v5("3.1.2-8", "4.13.1-1")
@v3("3.1.2-8", "4.8.0-1")
def test_published_after_a_protocol_error(client, level, topic):
    watcher = client(level)
    watcher.subscribe((topic, 2))
    one = client(level, will=Will(topic, b"last words"))
    one.send(packets.publish("a/#", level=level))
    one.expect_close()
    assert watcher.receive().payload == b"last words"


@v5("3.1.2-10", "3.1.2-7")
@v3("3.1.2-10")
def test_published_once(client, level, topic, name):
    watcher = client(level)
    watcher.subscribe((topic, 2))
    client(level, client_id=name, will=Will(topic, b"first")).drop()
    assert watcher.receive().payload == b"first"
    client(level, client_id=name).drop()
    watcher.nothing_but(client(level))


@v5("3.1.2-7")
@v3("3.1.2-12", "3.1.2-8")
def test_belongs_to_its_connection(client, level, topic, name):
    """A connection without a will has none, whatever the one before it had."""
    watcher = client(level)
    watcher.subscribe((f"{topic}/#", 2))
    kept = {"client_id": name, "clean": False, "props": {"session_expiry": 60}}
    client(level, **kept, will=Will(f"{topic}/old")).disconnect()
    client(level, **kept).drop()
    client(level, **kept, will=Will(f"{topic}/new", b"second")).drop()
    assert watcher.receive().payload == b"second"
    watcher.nothing_but(client(level))


@QOS
@v5("3.1.2-15", "3.3.1-5")
@v3("3.1.2-17")
def test_retained_will(client, level, topic, qos):
    watcher = client(level)
    watcher.subscribe((topic, 2))
    client(level, will=Will(topic, b"kept", qos, retain=True)).drop()
    assert watcher.receive().retain is False
    watcher.retained_so_far()
    one = client(level)
    one.subscribe((topic, 2))
    packet = one.receive()
    assert (packet.payload, packet.qos, packet.retain) == (b"kept", qos, True)


@v5("3.1.2-14", "3.3.1-8")
@v3("3.1.2-16")
def test_will_that_is_not_retained_is_not_kept(client, level, topic):
    watcher = client(level)
    watcher.subscribe((topic, 2))
    client(level, will=Will(topic)).drop()
    watcher.receive()
    one = client(level)
    one.subscribe((topic, 2))
    assert one.settled() == []


@v5("3.1.2-9")
@v3("3.1.2-9")
@pytest.mark.parametrize("payload", (b"", b"\0\xff" * 30000))
def test_payloads_of_wills(client, level, topic, payload):
    watcher = client(level)
    watcher.subscribe((topic, 2))
    client(level, will=Will(topic, payload)).drop()
    assert watcher.receive().payload == payload


@pytest.mark.parametrize("bad", ("a/#", "+", ""))
@v5("3.1.4-1", "4.7.0-1", "4.7.3-1")
@v3("3.1.4-1", "4.7.1-1", "4.7.3-1")
def test_will_topic_that_is_none(raw, level, bad):
    link = raw(level)
    link.send(packets.connect("", level, will=Will(bad)))
    link.refused(0x81, 0x82, 0x90)


@v5("3.1.3-10", "3.3.2-17", "3.3.2-18", "3.3.2-4", "3.3.2-15", "3.3.2-16", "3.3.2-20")
def test_properties_of_wills(client, topic):
    props = {
        "payload_format": 1,
        "content_type": "text/plain",
        "response_topic": "answers/here",
        "correlation_data": b"\0\xff7",
        "user": [("z", "2"), ("a", "1"), ("z", "2"), ("", "")],
    }
    watcher = client()
    watcher.subscribe((topic, 2))
    client(will=Will(topic, b"x", 1, props=props)).drop()
    assert watcher.receive().props == props


@v5("3.3.2-6")
def test_will_expires_from_when_it_is_published(client, topic):
    watcher = client()
    watcher.subscribe((topic, 2))
    client(will=Will(topic, b"x", 1, props={"message_expiry": 60})).drop()
    assert 58 <= watcher.receive().props["message_expiry"] <= 60


@v5("3.1.2-8", "3.1.3-9")
@differs("mosquitto", "keeps wills of this size")
def test_delay(client, topic, name):
    watcher = client()
    watcher.subscribe((topic, 2))
    began = time.monotonic()
    client(client_id=name, props={"session_expiry": 60}, will=Will(topic, b"late", props={"will_delay": 2})).drop()
    assert watcher.receive().payload == b"late"
    assert time.monotonic() - began > 0.9, "seconds are whole, so one may be nearly over when it is counted"


@v5("3.1.2-8", "3.1.3-9")
@differs("mosquitto", "keeps wills of this size")
def test_delay_ends_with_the_session(client, topic, name):
    watcher = client()
    watcher.subscribe((topic, 2))
    client(client_id=name, props={"session_expiry": 1}, will=Will(topic, b"early", props={"will_delay": 3600})).drop()
    assert watcher.receive().payload == b"early"


@v5("3.1.2-8", "3.1.3-9")
@differs("mosquitto", "waits for the delay although the session has ended")
def test_no_delay_without_a_session(client, topic):
    """A session that ends with its connection ends the delay too."""
    watcher = client()
    watcher.subscribe((topic, 2))
    client(will=Will(topic, b"now", props={"will_delay": 3600})).drop()
    assert watcher.receive(3).payload == b"now"


@v5("3.1.3-9")
def test_coming_back_in_time_calls_it_off(client, topic, name):
    watcher = client()
    watcher.subscribe((topic, 2))
    kept = {"client_id": name, "clean": False, "props": {"session_expiry": 60}}
    client(**kept, will=Will(topic, props={"will_delay": 1})).drop()
    one = client(**kept)
    let_pass(2.5)
    watcher.nothing_but(client())
    one.disconnect()


@v5("3.1.2-8", "3.1.3-9", "3.1.4-4")
@differs("mosquitto", "forgets a delayed will when its session is replaced")
def test_a_clean_start_ends_the_session_and_so_the_delay(client, topic, name):
    watcher = client()
    watcher.subscribe((topic, 2))
    client(client_id=name, clean=False, props={"session_expiry": 60}, will=Will(topic, b"ended", props={"will_delay": 3600})).drop()
    client(client_id=name, clean=True)
    assert watcher.receive(3).payload == b"ended"


@v5("3.1.4-3", "3.1.2-8")
@v3("3.1.4-2", "3.1.2-8")
def test_taken_over_without_a_delay(client, level, topic, name):
    watcher = client(level)
    watcher.subscribe((topic, 2))
    client(level, client_id=name, will=Will(topic, b"old")).settled()
    client(level, client_id=name)
    assert watcher.receive().payload == b"old"


@v5("3.1.3-9", "3.1.4-3")
def test_taken_over_within_the_delay(client, topic, name):
    watcher = client()
    watcher.subscribe((topic, 2))
    kept = {"client_id": name, "clean": False, "props": {"session_expiry": 60}}
    client(**kept, will=Will(topic, b"old", props={"will_delay": 2})).settled()
    one = client(**kept)
    let_pass(2.5)
    watcher.nothing_but(client())
    one.disconnect()


@v5("3.1.2-10", "3.14.4-3")
def test_disconnect_with_another_session_expiry_takes_the_will_along(client, topic, name):
    watcher = client()
    watcher.subscribe((topic, 2))
    one = client(client_id=name, props={"session_expiry": 60}, will=Will(topic))
    one.disconnect(0, {"session_expiry": 0})
    watcher.nothing_but(client())


@v5("3.1.2-8")
def test_delayed_will_survives_a_restart(own_broker, topic, name):
    broker = own_broker()
    watcher = Client(broker.mqtt_address, client_id=f"{name}w", clean=False, props={"session_expiry": 60})
    watcher.subscribe((topic, 1))
    options = {"session_expiry": 60}
    Client(broker.mqtt_address, client_id=name, props=options, will=Will(topic, b"late", 1, props={"will_delay": 2})).drop()
    watcher.settled()
    broker.restart()
    watcher = Client(broker.mqtt_address, client_id=f"{name}w", clean=False, props={"session_expiry": 60})
    assert watcher.receive(6).payload == b"late"


def watching(broker, topic, name):
    """A session that goes on over restarts, subscribed to what is watched."""
    watcher = Client(broker.mqtt_address, client_id=f"{name}w", clean=False, props={"session_expiry": 600})
    if not watcher.connack.session_present:
        watcher.subscribe((topic, 2))
    return watcher


@pytest.mark.parametrize("how", ("kill9", "stop"))
@pytest.mark.parametrize("connected", (True, False))
@v5("3.1.2-8", "3.1.2-10")
def test_its_session_ends_while_the_node_is_down(own_broker, topic, name, how, connected):
    """Published once the node is back, and by no later start again."""
    broker = own_broker()
    watching(broker, topic, name).disconnect()
    will = Will(topic, b"late", 2, props={"will_delay": 3600})
    one = Client(broker.mqtt_address, client_id=name, props={"session_expiry": 2}, will=will)
    if not connected:
        one.drop()
    getattr(broker, how)()
    let_pass(2.5)
    for payload in (b"late", None):
        broker.start()
        watcher = watching(broker, topic, name)
        if payload:
            assert watcher.receive().payload == payload
        let_pass(0 if payload else 2.5)
        watcher.nothing_but(Client(broker.mqtt_address))
        watcher.disconnect()
        getattr(broker, how)()


@pytest.mark.parametrize("how", ("kill9", "stop"))
@v5("3.1.2-8", "3.1.2-10", "3.1.4-4")
def test_a_clean_start_right_after_the_node_is_back(own_broker, topic, name, how):
    broker = own_broker()
    watching(broker, topic, name).disconnect()
    will = Will(topic, b"ended", 1, props={"will_delay": 3600})
    Client(broker.mqtt_address, client_id=name, props={"session_expiry": 3600}, will=will).settled()
    getattr(broker, how)()
    broker.start()
    Client(broker.mqtt_address, client_id=name, clean=True)
    for times in (1, 0):
        watcher = watching(broker, topic, name)
        for _ in range(times):
            assert watcher.receive().payload == b"ended"
        watcher.nothing_but(Client(broker.mqtt_address))
        watcher.disconnect()
        getattr(broker, how)()
        broker.start()


@v5("3.1.2-8", "3.1.3-9")
@differs("mosquitto", "keeps wills of this size")
def test_killed_with_its_client_connected(own_broker, topic, name):
    broker = own_broker()
    watching(broker, topic, name).disconnect()
    Client(broker.mqtt_address, client_id=name, props={"session_expiry": 3600}, will=Will(topic, b"killed", 2)).settled()
    broker.kill9()
    broker.start()
    watcher = watching(broker, topic, name)
    assert watcher.receive().payload == b"killed"
    watcher.nothing_but(Client(broker.mqtt_address))


@v5("3.1.2-8", "3.1.3-9")
@differs("mosquitto", "keeps wills of this size")
def test_a_refused_connect_changes_nothing(broker, client, topic, name):
    """A CONNECT that fails after it found its session, here for a will that is too large to be kept: the will that waits is published
    in its time, and the session ends in its own."""
    watcher = client()
    watcher.subscribe((topic, 2))
    client(client_id=name, props={"session_expiry": 3}, will=Will(topic, b"late", props={"will_delay": 2})).drop()
    watcher.settled()
    large = Will(f"{topic}/{'x' * 5_000}", b"x" * 65_000)
    options = {"clean": False, "props": {"session_expiry": 3}}
    Client(broker.address, client_id=name, accept=False, will=large, **options).refused(0x88, 0x97)
    assert watcher.receive().payload == b"late"
    let_pass(4)
    assert not client(client_id=name, **options).connack.session_present


@v5("3.2.2-2", "3.1.2-23")
@differs("mosquitto", "keeps wills of this size")
def test_a_refused_connect_makes_no_session(broker, client, topic, name):
    large = Will(f"{topic}/{'x' * 5_000}", b"x" * 65_000)
    options = {"clean": False, "props": {"session_expiry": 60}}
    Client(broker.address, client_id=name, accept=False, will=large, **options).refused(0x88, 0x97)
    assert not client(client_id=name, **options).connack.session_present


@pytest.mark.parametrize("case", ("larger than one may be", "larger than one may be, clean", "larger than all may be"))
@v5("3.1.2-4", "3.1.2-23", "4.1.0-1")
@differs("mosquitto", "keeps wills of this size")
def test_a_refused_connect_keeps_what_waits(broker, client, topic, name, case):
    """The refused CONNECT asks for another expiry interval, or for no session: the one that is there goes on as it was."""
    kept = {"client_id": name, "clean": False, "props": {"session_expiry": 3600}}
    one = client(**kept)
    one.subscribe((topic, 1))
    many = case == "larger than all may be"
    if many:
        one.subscribe(*((f"{topic}/{at}/{'x' * 8_000}", 0) for at in range(126)))
    one.disconnect()
    client().publish(topic, b"waits", 1)
    large = Will(topic, b"x" * 60_000) if many else Will(f"{topic}/{'x' * 5_000}", b"x" * 65_000)
    # A clean start keeps a will only with a session that outlives the connection.
    clean = case.endswith("clean")
    options = {"clean": clean, "props": {"session_expiry": 1 if clean else 0}}
    Client(broker.address, client_id=name, accept=False, will=large, **options).refused(0x88, 0x97)
    let_pass(2)
    one = client(**kept)
    assert one.connack.session_present
    assert one.receive().payload == b"waits"


@v5("3.3.1-1")
def test_a_refused_connect_keeps_the_doubt(own_broker, topic, name):
    """The broker stopped without a word: whether a message was sent nobody knows, also after a CONNECT that was refused for its will."""
    broker = own_broker()
    kept = {"client_id": name, "clean": False, "props": {"session_expiry": 3600}}
    one = Client(broker.mqtt_address, **kept)
    one.subscribe((topic, 1), *((f"{topic}/{at}/{'x' * 8_000}", 0) for at in range(126)))
    Client(broker.mqtt_address).publish(topic, b"sent", 1)
    assert not one.receive(settle=False).dup
    broker.kill9()
    broker.start()
    large = Will(topic, b"x" * 60_000)
    Client(broker.mqtt_address, accept=False, will=large, **kept).refused(0x88, 0x97)
    again = Client(broker.mqtt_address, **kept).receive()
    assert again.payload == b"sent" and again.dup
