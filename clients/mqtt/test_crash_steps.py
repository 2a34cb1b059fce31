"""kill -9 of the server, or a lost connection, at each step of QoS 1 and QoS 2, in both directions."""

import random
import time

import pytest
from waiting import wait_until

from mqtt import packets
from mqtt.link import SECONDS, Client
from mqtt.marks import v3, v5
from mqtt.steps import KEPT, SMALL, again, answer

TIMES = 4  # how often a step is tried whose outcome depends on the moment


def everything(server, level, name, topic, held=()):
    """Payloads which a subscriber that holds these packet ids is still given, and the packets that came, up to a marker behind all."""
    one, held, came, kinds, marker = again(server, level, name), set(held), [], [], None
    Client(server.mqtt_address, level).publish(topic, b"marker", qos=2)
    while b"marker" not in came or held:
        packet = one.next()
        if packet.payload == b"marker":
            marker = packet.packet_id
        elif packet.packet_id != marker:
            kinds.append((packet.kind, packet.packet_id))
        payload = answer(one, packet, held)
        if payload is not None:
            came.append(payload)
    assert one.settled() == []
    one.disconnect()
    assert came[-1] == b"marker", came
    return came[:-1], kinds


class Pair:
    """A persistent publisher that is connected, and a persistent subscriber that is not."""

    def __init__(self, server, level, name, topic):
        self.server, self.level, self.name, self.topic = server, level, name, topic
        self.subscriber = f"{name}s"
        one = Client(server.mqtt_address, level, client_id=self.subscriber, **KEPT)
        one.subscribe((topic, 2))
        one.disconnect()
        self.link = Client(server.mqtt_address, level, client_id=name, **KEPT)

    def send(self, packet_id, data, qos=2, dup=False):
        self.link.send(packets.publish(self.topic, data, qos, packet_id, dup=dup, level=self.level))

    def rel(self, packet_id):
        self.link.send(packets.ack("PUBREL", packet_id))

    def recover(self):
        self.link = again(self.server, self.level, self.name)

    def comp(self, packet_id):
        """Of a PUBREL that was sent again: at level 5 it may say that the id is not known."""
        assert self.link.next("PUBCOMP").packet_id == packet_id

    def whole(self, packet_id, data, dup=False):
        self.send(packet_id, data, dup=dup)
        assert self.link.next("PUBREC").packet_id == packet_id
        self.rel(packet_id)
        assert self.link.next("PUBCOMP").packet_id == packet_id

    def given(self):
        return everything(self.server, self.level, self.subscriber, self.topic)[0]


@v5("4.3.3-8", "4.3.3-10")
@v3("4.3.3-2")
def test_publish_sent_and_pubrec_not_read(own_broker, cut, level, topic, name, seed):
    """Whether the server had it or not when it fell: sent again with DUP it is there once."""
    server, chance = own_broker(settings=SMALL), random.Random(seed)
    pair = Pair(server, level, name, topic)
    for turn in range(TIMES):
        pair.send(7, b"%d" % turn)
        if turn:
            wait_until(pair.link.readable, SECONDS, "PUBREC") if turn % 2 else time.sleep(chance.uniform(0, 0.004))
        cut(server, pair.link)
        pair.recover()
        pair.whole(7, b"%d" % turn, dup=True)
    assert pair.given() == [b"%d" % turn for turn in range(TIMES)]


@v5("4.3.3-10", "4.3.3-11", "4.3.3-12")
@v3("4.3.3-2")
def test_pubrec_read_and_pubrel_not_sent(own_broker, cut, level, topic, name):
    """The id is still taken after the crash: a PUBLISH with it is the same message, until the PUBREL."""
    server = own_broker(settings=SMALL)
    pair = Pair(server, level, name, topic)
    pair.send(7, b"one")
    pair.link.next("PUBREC")
    cut(server, pair.link)
    pair.recover()
    pair.send(7, b"one", dup=True)  # as a client may that lost what it had read
    pair.link.next("PUBREC")
    cut(server, pair.link)
    pair.recover()
    pair.rel(7)
    pair.comp(7)
    pair.whole(7, b"two")
    assert pair.given() == [b"one", b"two"]


@v5("4.3.3-11")
@v3("4.3.3-2")
def test_pubrel_sent_and_pubcomp_not_read(own_broker, cut, level, topic, name, seed):
    server, chance = own_broker(settings=SMALL), random.Random(seed)
    pair = Pair(server, level, name, topic)
    for turn in range(TIMES):
        pair.send(7, b"%d" % turn)
        pair.link.next("PUBREC")
        pair.rel(7)
        if turn:
            wait_until(pair.link.readable, SECONDS, "PUBCOMP") if turn % 2 else time.sleep(chance.uniform(0, 0.004))
        cut(server, pair.link)
        pair.recover()
        pair.rel(7)
        pair.comp(7)
    assert pair.given() == [b"%d" % turn for turn in range(TIMES)]


@v5("4.3.3-12")
@v3("4.3.3-2")
def test_pubcomp_read(own_broker, cut, level, topic, name):
    """The id is free after the crash as before: a PUBLISH with it is another message, even with DUP."""
    server = own_broker(settings=SMALL)
    pair = Pair(server, level, name, topic)
    pair.whole(7, b"one")
    cut(server, pair.link)
    pair.recover()
    pair.whole(7, b"two")
    cut(server, pair.link)
    pair.recover()
    pair.whole(7, b"three", dup=True)
    cut(server, pair.link)
    assert pair.given() == [b"one", b"two", b"three"]


@v5("4.3.2-4", "4.3.2-5")
@v3("4.3.2-2")
def test_puback_read_and_not_read(own_broker, cut, level, topic, name):
    server = own_broker(settings=SMALL)
    pair = Pair(server, level, name, topic)
    pair.send(3, b"acknowledged", qos=1)
    pair.link.next("PUBACK")
    cut(server, pair.link)
    pair.recover()
    pair.send(3, b"unsure", qos=1)
    cut(server, pair.link)
    pair.recover()
    pair.send(3, b"unsure", qos=1, dup=True)
    pair.link.next("PUBACK")
    cut(server, pair.link)
    given = pair.given()
    assert given in ([b"acknowledged", b"unsure"], [b"acknowledged", b"unsure", b"unsure"]), given


class Delivery:
    """A persistent subscriber that is connected, and was sent one message which it does not answer yet."""

    def __init__(self, server, level, name, topic, qos):
        self.server, self.level, self.name, self.topic = server, level, name, topic
        self.link = Client(server.mqtt_address, level, client_id=name, **KEPT)
        self.link.subscribe((topic, qos))
        self.publisher = Client(server.mqtt_address, level)
        self.publisher.publish(topic, b"one", qos=qos)
        self.packet = self.link.next("PUBLISH")
        assert (self.packet.payload, self.packet.qos, self.packet.dup) == (b"one", qos, False)
        self.id = self.packet.packet_id

    def rest(self, held=()):
        return everything(self.server, self.level, self.name, self.topic, held)


@v5("3.3.1-1", "4.3.3-3", "4.4.0-1")
@v3("3.3.1-1", "4.3.3-1", "4.4.0-1")
def test_delivered_and_pubrec_not_sent(own_broker, cut, level, topic, name):
    """The same message comes again under the same id, marked DUP, so the subscriber knows that it has it."""
    server = own_broker(settings=SMALL)
    one = Delivery(server, level, name, topic, 2)
    for _ in range(2):
        cut(server, one.link)
        one.link = again(server, level, name)
        packet = one.link.next("PUBLISH")
        assert (packet.packet_id, packet.payload, packet.dup, packet.qos) == (one.id, b"one", True, 2)
    cut(server, one.link)
    assert one.rest({one.id}) == ([], [("PUBLISH", one.id), ("PUBREL", one.id)])


@v5("4.3.3-4", "4.3.3-6", "4.4.0-1")
@v3("4.3.3-1", "4.4.0-1")
def test_delivered_and_pubrec_sent(own_broker, cut, level, topic, name, seed):
    """PUBLISH or PUBREL comes again, as the server had read the PUBREC or not; after its PUBREL only the PUBREL may."""
    server, chance = own_broker(settings=SMALL), random.Random(seed)
    one = Delivery(server, level, name, topic, 2)
    released = False
    for turn in range(TIMES):
        one.link.send(packets.ack("PUBREC", one.id))
        if turn:
            wait_until(one.link.readable, SECONDS, "PUBREL") if turn % 2 else time.sleep(chance.uniform(0, 0.004))
            released |= one.link.readable()
        cut(server, one.link)
        one.link = again(server, level, name)
        packet = one.link.next()
        assert packet.packet_id == one.id
        assert packet.kind == "PUBREL" or (packet.kind == "PUBLISH" and packet.dup and not released), packet
        if packet.kind == "PUBREL":
            break
    cut(server, one.link)
    came, kinds = one.rest({one.id})
    assert came == [] and kinds[-1] == ("PUBREL", one.id), (came, kinds)


@v5("4.3.3-5", "4.3.3-6", "4.4.0-1")
@v3("4.3.3-1", "4.4.0-1")
def test_delivered_and_pubrel_read(own_broker, cut, level, topic, name):
    """What is released comes never again; the PUBREL does until it is answered."""
    server = own_broker(settings=SMALL)
    one = Delivery(server, level, name, topic, 2)
    one.link.send(packets.ack("PUBREC", one.id))
    assert one.link.next("PUBREL").packet_id == one.id
    for _ in range(2):
        cut(server, one.link)
        one.link = again(server, level, name)
        assert one.link.next("PUBREL").packet_id == one.id
    cut(server, one.link)
    assert one.rest({one.id}) == ([], [("PUBREL", one.id)])


@v5("4.3.3-5", "4.3.3-6")
@v3("4.3.3-1")
def test_delivered_and_pubcomp_sent(own_broker, cut, level, topic, name):
    server = own_broker(settings=SMALL)
    one = Delivery(server, level, name, topic, 2)
    one.link.send(packets.ack("PUBREC", one.id))
    one.link.next("PUBREL")
    one.link.send(packets.ack("PUBCOMP", one.id))
    cut(server, one.link)
    came, kinds = one.rest()
    assert came == [] and kinds in ([], [("PUBREL", one.id)]), (came, kinds)


def delivered_at_qos_1(server, cut, level, name, topic):
    """What comes of a message that was delivered and not acknowledged before the cut, and after it twice over."""
    one = Delivery(server, level, name, topic, 1)
    cut(server, one.link)
    one.link = again(server, level, name)
    packet = one.link.next("PUBLISH")
    assert (packet.payload, packet.qos) == (b"one", 1)
    one.link.send(packets.ack("PUBACK", packet.packet_id))
    cut(server, one.link)
    came, _ = one.rest()
    assert came in ([], [b"one"]), came
    return one.packet, packet


@v5("4.3.2-3", "4.4.0-1")
@v3("4.3.2-1", "4.4.0-1")
def test_delivered_and_puback_not_sent(own_broker, cut, level, topic, name):
    delivered_at_qos_1(own_broker(settings=SMALL), cut, level, name, topic)


@v5("3.3.1-1", "4.4.0-1")
@v3("3.3.1-1", "4.4.0-1")
def test_qos_1_comes_again_with_dup(own_broker, cut, level, topic, name):
    first, second = delivered_at_qos_1(own_broker(settings=SMALL), cut, level, name, topic)
    assert second.dup and second.packet_id == first.packet_id, (first, second)


def by_qos(published):
    """Payloads at QoS 1 and at QoS 2: between the two there is no order."""
    return tuple([packet.payload for packet in published if packet.qos == qos] for qos in (1, 2))


@v5("4.4.0-1", "4.6.0-1", "4.6.0-5")
@v3("4.4.0-1", "4.6.0-1", "4.6.0-6")
def test_many_in_flight_at_different_steps(own_broker, cut, level, topic, name):
    """Released, received and unanswered ones at once: each goes on from its own step, in order, and new ones come behind them."""
    server = own_broker(settings=SMALL)
    one = Client(server.mqtt_address, level, client_id=name, **KEPT)
    one.subscribe((topic, 2))
    publisher = Client(server.mqtt_address, level)
    for number in range(12):
        publisher.publish(topic, b"%d" % number, qos=2 if number % 3 else 1)
    sent = [one.next("PUBLISH") for _ in range(12)]
    assert by_qos(sent) == ([b"0", b"3", b"6", b"9"], [b"1", b"2", b"4", b"5", b"7", b"8", b"10", b"11"])
    answered = [packet for packet in sent if int(packet.payload) < 8]
    for packet in answered:
        one.send(packets.ack("PUBACK" if packet.qos == 1 else "PUBREC", packet.packet_id))
    twos = [packet for packet in answered if packet.qos == 2]
    for packet in twos:
        assert one.next("PUBREL").packet_id == packet.packet_id
    for packet in twos[:2]:
        one.send(packets.ack("PUBCOMP", packet.packet_id))
    one.settled()  # all of it is read
    cut(server, one)
    publisher = Client(server.mqtt_address, level)
    publisher.publish(topic, b"later", qos=2)
    one = again(server, level, name)
    came = [one.next()]
    while came[-1].payload != b"later":
        came.append(one.next())
    released = [packet.packet_id for packet in came if packet.kind == "PUBREL"]
    assert released in ([packet.packet_id for packet in twos[at:]] for at in range(3)), came
    published = [packet for packet in came if packet.kind == "PUBLISH"]
    ones, again_twos = by_qos(published)
    # Acknowledgements may be lost with the server.
    assert ones[-1:] == [b"9"] and ones[:-1] in ([b"0", b"3", b"6"][at:] for at in range(4)), came
    assert again_twos == [b"8", b"10", b"11", b"later"] and not published[-1].dup, came
    ids = {packet.payload: packet.packet_id for packet in sent}
    assert all(packet.dup and packet.packet_id == ids[packet.payload] for packet in published[:-1] if packet.qos == 2), came
