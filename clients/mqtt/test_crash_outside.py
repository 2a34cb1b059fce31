"""kill -9 of the server, or a lost connection, while messages are in flight that lie in no leg of the session: retained ones of a new
subscription, and those of shared subscriptions."""

import random

import pytest
from waiting import wait_until

from mqtt import packets
from mqtt.link import Client
from mqtt.marks import v3, v5
from mqtt.steps import KEPT, SMALL, again, answer


def keep(server, level, topic, count, qos):
    """Retains messages below a topic, in order."""
    publisher = Client(server.mqtt_address, level)
    for at in range(count):
        publisher.publish(f"{topic}/{at:03}", b"%d" % at, qos, retain=True)
    publisher.disconnect()


@pytest.mark.parametrize("qos", (1, 2))
@v5("4.4.0-1", "3.3.1-1", "4.3.2-3", "4.3.3-5")
@v3("4.4.0-1", "3.3.1-1", "4.3.2-1", "4.3.3-1")
def test_retained_messages_in_flight_to_a_new_subscription(own_broker, cut, level, topic, name, qos):
    server = own_broker(settings=SMALL)
    keep(server, level, topic, 3, qos)
    one = Client(server.mqtt_address, level, client_id=name, **KEPT)
    one.subscribe((f"{topic}/#", 2))
    first = [one.next("PUBLISH") for _ in range(3)]
    one.send(packets.ack("PUBACK" if qos == 1 else "PUBREC", first[0].packet_id))
    if qos == 2:
        assert one.next("PUBREL").packet_id == first[0].packet_id
    one.settled()
    cut(server, one)
    one = again(server, level, name)
    if qos == 2:
        assert one.next("PUBREL").packet_id == first[0].packet_id
        one.send(packets.ack("PUBCOMP", first[0].packet_id))
    else:
        # Acknowledgements may be lost with the server, and so may identifiers of QoS 1.
        one.inbox.append(one.next("PUBLISH"))
        if one.inbox[0].payload == first[0].payload:
            one.send(packets.ack("PUBACK", one.inbox.pop().packet_id))
    second = [one.next("PUBLISH") for _ in range(2)]
    for before, after in zip(first[1:], second, strict=True):
        same = (after.payload, after.qos, after.retain, after.topic)
        assert after.dup and same == (before.payload, qos, True, before.topic), (before, after)
        assert after.packet_id == before.packet_id or (qos == 1 and cut.__name__ == "by_server"), (before, after)
        assert after.props == before.props
    for packet in second:
        one.send(packets.ack("PUBACK" if qos == 1 else "PUBREC", packet.packet_id))
        if qos == 2:
            one.expect("PUBREL", packet.packet_id)
            one.send(packets.ack("PUBCOMP", packet.packet_id))
    assert one.settled() == []
    cut(server, one)
    left = [packet for packet in again(server, level, name).settled() if packet.kind == "PUBLISH"]
    assert all(packet.dup for packet in left) if qos == 1 else left == [], left


@pytest.mark.parametrize("qos", (1, 2))
@v5("4.4.0-1", "3.3.1-9")
@v3("4.4.0-1", "3.3.1-6")
def test_retained_messages_that_found_no_room_yet(own_broker, cut, level, topic, name, qos):
    """A new subscription of a kept session gets all that is retained, however often it is cut off: at QoS 2 each once."""
    server = own_broker(settings=SMALL | {"mqtt.in_flight_max": 10})
    count, came, held = 150, [], set()
    keep(server, level, topic, count, qos)
    one = Client(server.mqtt_address, level, client_id=name, **KEPT)
    one.subscribe((f"{topic}/#", 2))
    for cuts in range(5):
        while len(set(came)) < (count if cuts == 4 else 30 * (cuts + 1)) or (cuts == 4 and held):
            payload = answer(one, one.next(), held)
            came += [payload] if payload is not None else []
        cut(server, one)
        one = again(server, level, name)
    came += [packet.payload for packet in one.settled() if packet.kind == "PUBLISH" and not (qos == 1 and packet.dup)]
    wanted = [b"%d" % at for at in range(count)]
    assert sorted(set(came), key=int) == wanted
    assert qos == 1 or sorted(came, key=int) == wanted, "twice"


@v5("4.4.0-1", "4.3.3-5")
def test_a_retained_message_that_is_replaced_in_flight(own_broker, cut, topic, name):
    server = own_broker(settings=SMALL)
    keep(server, 5, topic, 1, 2)
    one = Client(server.mqtt_address, client_id=name, **KEPT)
    one.subscribe((f"{topic}/#", 2))
    assert one.next("PUBLISH").payload == b"0"
    cut(server, one)
    publisher = Client(server.mqtt_address)
    publisher.publish(f"{topic}/000", b"newer", 2, retain=True)
    one = again(server, 5, name)
    assert [one.receive().payload for _ in range(2)] == [b"0", b"newer"]
    assert one.settled() == []


SHARED = pytest.mark.parametrize("step", ("PUBLISH", "PUBREC"))


@SHARED
@v5("4.8.2-4", "4.8.2-5", "4.4.0-1", "4.3.3-5")
def test_shared_qos_2_in_flight(own_broker, cut, topic, name, step):
    """Exactly once over a crash: its member finishes it, and nobody else gets it."""
    server = own_broker(settings=SMALL)
    one = Client(server.mqtt_address, client_id=name, **KEPT)
    one.subscribe((f"$share/g/{topic}", 2), props={"subscription_id": 7})
    Client(server.mqtt_address).publish(topic, b"x", 2)
    first = one.receive(settle=False)
    if step == "PUBREC":
        one.send(packets.ack("PUBREC", first.packet_id))
        one.expect("PUBREL", first.packet_id)
    cut(server, one)
    other, publisher = Client(server.mqtt_address), Client(server.mqtt_address)
    other.subscribe((f"$share/g/{topic}", 2))
    other.nothing_but(publisher)
    one = again(server, 5, name)
    if step == "PUBLISH":
        packet = one.expect("PUBLISH")
        assert packet.dup and (packet.packet_id, packet.payload, packet.qos) == (first.packet_id, b"x", 2)
        assert packet.props == first.props
        one.send(packets.ack("PUBREC", packet.packet_id))
    one.expect("PUBREL", first.packet_id)
    one.send(packets.ack("PUBCOMP", first.packet_id))
    assert one.settled() == []
    cut(server, one)
    other, publisher = Client(server.mqtt_address), Client(server.mqtt_address)
    other.subscribe((f"$share/g/{topic}", 2))
    other.nothing_but(publisher)
    # The PUBCOMP may have been lost.
    assert [packet.kind for packet in again(server, 5, name).settled()] in ([], ["PUBREL"])


@v5("4.8.2-1", "4.3.3-5")
def test_shared_qos_2_is_exactly_once_over_many_crashes(own_broker, seed, topic, name):
    server, chance = own_broker(settings=SMALL), random.Random(seed)
    names = [f"{name}{at}" for at in range(3)]
    members = [Client(server.mqtt_address, client_id=one, **KEPT) for one in names]
    for one in members:
        one.subscribe((f"$share/g/{topic}", 2))
    came, held, sent = [], [set() for _ in names], 0
    for _ in range(8):
        publisher = Client(server.mqtt_address)
        for _ in range(20):
            publisher.publish(topic, b"%d" % sent, 2)
            sent += 1
        for one, holds in zip(members, held, strict=True):
            for packet in one.settled()[: chance.randrange(20)]:
                payload = answer(one, packet, holds)
                came += [payload] if payload is not None else []
        server.kill9()
        server.start()
        members = [again(server, 5, one) for one in names]

    def done():
        for one, holds in zip(members, held, strict=True):
            for packet in one.settled():
                payload = answer(one, packet, holds)
                came.extend([payload] if payload is not None else [])
        return len(came) >= sent and not any(held)

    wait_until(done, 20, "all came")
    assert sorted(came, key=int) == [b"%d" % at for at in range(sent)]
