"""Shared subscriptions: one member gets each message, at its own QoS, and what a member held goes where the standard says."""

import pytest
from waiting import wait_until

from mqtt.link import Client, Closed, let_pass
from mqtt.marks import differs, v5
from mqtt.packets import ack, publish, subscribe

KEPT = {"clean": False, "props": {"session_expiry": 60}}


def drained(members):
    """What came to each member until each has answered a PINGREQ, acknowledged."""
    came = []
    for member in members:
        packets = member.settled()
        for packet in packets:
            if packet.qos == 1:
                member.send(ack("PUBACK", packet.packet_id))
        came.append([packet.payload for packet in packets])
    return came


def gathered(members, count):
    """Reads on until `count` messages came to all members together."""
    came = [[] for _ in members]
    for _ in range(200):
        for at, payloads in enumerate(drained(members)):
            came[at] += payloads
        if sum(map(len, came)) >= count:
            return came
        let_pass(0.02)
    raise AssertionError(f"{came} came, {count} expected")


PLAIN = differs("mosquitto", "takes a share without a name or a filter for a plain subscription")
BAD = [
    *(pytest.param(bad, marks=PLAIN) for bad in ("$share//{}", "$share/g", "$share/g/", "$share/")),
    *("$share/g+/{}", "$share/#/{}", "$share/g#/a"),
    pytest.param("$share/+/{}", marks=differs("mosquitto", "takes a wildcard in the name of a group", always=False)),
]


@pytest.mark.parametrize("bad", BAD)
@v5("4.8.2-1", "4.8.2-2", "4.7.3-1")
def test_bad_names(client, topic, bad):
    one = client()
    one.send(subscribe(1, [(bad.format(topic), 1)]))
    try:
        assert one.expect("SUBACK").reasons[0] >= 0x80
    except Closed:
        assert all(packet.reason in (0x81, 0x82, 0x8F) for packet in one.inbox)


@pytest.mark.parametrize("qos", (0, 1, 2))
@v5("4.8.2-1", "4.8.2-2", "4.5.0-1")
def test_each_message_goes_to_one_member(client, topic, qos):
    members = [client() for _ in range(3)]
    for member in members:
        assert member.subscribe((f"$share/g/{topic}/+", min(qos, 1))).reasons == [min(qos, 1)]
    publisher = client()
    for at in range(60):
        publisher.publish(f"{topic}/{at % 4}", b"%d" % at, qos)
    came = gathered(members, 60)
    assert sorted(int(payload) for each in came for payload in each) == list(range(60))
    assert all(each for each in came), "a member got nothing of sixty messages"


@v5("4.8.2-1")
def test_groups_and_plain_subscriptions_each_get_all(client, topic):
    first, second, plain, publisher = client(), client(), client(), client()
    first.subscribe((f"$share/one/{topic}", 1))
    second.subscribe((f"$share/two/{topic}", 1))
    plain.subscribe((topic, 1))
    wanted = [b"%d" % at for at in range(10)]
    for payload in wanted:
        publisher.publish(topic, payload, 1)
    assert first.payloads(10) == second.payloads(10) == plain.payloads(10) == wanted


@v5("4.8.2-1", "4.7.1-1")
def test_one_name_with_two_filters_is_two_groups(client, topic):
    one, other, publisher = client(), client(), client()
    one.subscribe((f"$share/g/{topic}/a", 1))
    other.subscribe((f"$share/g/{topic}/#", 1))
    publisher.publish(f"{topic}/a", b"x", 1)
    assert one.receive().payload == other.receive().payload == b"x"


@v5("4.8.2-1", "3.8.4-3")
def test_one_client_shared_and_plain(client, topic):
    """Two subscriptions of one client: the message comes once for each, or once for both."""
    one = client()
    one.subscribe((f"$share/g/{topic}", 1), (topic, 1))
    one.publish(topic, b"x", 1)
    assert [packet.payload for packet in one.settled()] in ([b"x"], [b"x", b"x"])


@pytest.mark.parametrize(("published", "granted"), ((2, 0), (2, 1), (1, 0), (0, 2), (2, 2)))
@v5("4.8.2-3", "3.8.4-8")
def test_qos_is_the_members(client, topic, published, granted):
    one, publisher = client(), client()
    one.subscribe((f"$share/g/{topic}", granted))
    publisher.publish(topic, b"x", published)
    assert one.receive().qos == min(published, granted)


@v5("4.8.2-1", "3.3.1-9")
@differs("mosquitto", "sends what is kept to shared subscriptions")
def test_nothing_kept_for_a_shared_subscription(client, topic):
    client().publish(topic, b"kept", 1, retain=True)
    one = client()
    one.subscribe((f"$share/g/{topic}", 1))
    assert one.settled() == []


@v5("3.10.4-1", "3.11.3-1")
def test_unsubscribing_leaves_the_group(client, topic):
    one, other, publisher = client(), client(), client()
    for member in (one, other):
        member.subscribe((f"$share/g/{topic}", 1))
    assert one.unsubscribe(topic).reasons == [0x11]
    assert one.unsubscribe(f"$share/g/{topic}").reasons == [0]
    for at in range(10):
        publisher.publish(topic, b"%d" % at, 1)
    assert other.payloads(10) == [b"%d" % at for at in range(10)]
    assert one.settled() == []


@v5("4.8.2-3")
@differs("mosquitto", "drops QoS 0 for members who are away")
def test_qos_0_goes_to_who_is_there(client, topic, name):
    away, here, publisher = client(client_id=name, **KEPT), client(), client()
    for member in (away, here):
        member.subscribe((f"$share/g/{topic}", 1))
    away.drop()
    here.settled()
    for at in range(20):
        publisher.publish(topic, b"%d" % at, 0)
    publisher.settled()
    assert gathered([here], 20) == [[b"%d" % at for at in range(20)]]


@pytest.mark.parametrize("members", (1, 3))
def test_qos_0_in_a_burst(client, topic, members):
    """More at once than members are handed ahead."""
    here, publisher = [client() for _ in range(members)], client()
    for member in here:
        member.subscribe((f"$share/g/{topic}", 1))
    payloads = [b"%d" % at for at in range(3000)]
    publisher.send(*(publish(topic, payload) for payload in payloads))
    publisher.settled()
    came = gathered(here, len(payloads))
    assert sorted(sum(came, []), key=int) == payloads
    assert all(one == sorted(one, key=int) for one in came)


def test_two_groups_of_one_client(client, topic):
    """What one group hands it leaves no room for the other, for a while."""
    one, publisher = client(), client(4)
    for part in "ab":
        one.subscribe((f"$share/g/{topic}/{part}", 1))
    sent = [(f"{topic}/{part}", b"%d" % at) for at in range(500) for part in "ab"]
    for qos in (0, 1):
        for first in range(0, len(sent), 250):
            some = sent[first : first + 250]
            publisher.send(*(publish(name, payload, qos, at + 1 if qos else None, level=4) for at, (name, payload) in enumerate(some)))
            publisher.settled()
        came = [one.receive() for _ in sent]
        for part in "ab":
            of = [packet.payload for packet in came if packet.topic == f"{topic}/{part}"]
            assert of == [b"%d" % at for at in range(500)]
        publisher.settled()


@v5("4.8.2-4", "4.4.0-1", "4.8.2-5")
@pytest.mark.parametrize("step", ("PUBLISH", "PUBREC"))
def test_qos_2_in_flight_waits_for_its_member(client, topic, name, step):
    """A member leaves in the middle of QoS 2: nobody else gets the message, and it is finished when the member is back."""
    one, publisher = client(client_id=name, **KEPT), client()
    one.subscribe((f"$share/g/{topic}", 2))
    publisher.publish(topic, b"x", 2)
    packet_id = one.receive(settle=False).packet_id
    if step == "PUBREC":
        one.send(ack("PUBREC", packet_id))
        one.expect("PUBREL", packet_id)
    other = client()
    other.subscribe((f"$share/g/{topic}", 2))
    one.drop()
    other.nothing_but(publisher)
    one = client(client_id=name, **KEPT)
    assert one.expect("PUBLISH" if step == "PUBLISH" else "PUBREL").packet_id == packet_id
    other.nothing_but(publisher)


@v5("4.8.2-5", "4.1.0-2")
@pytest.mark.parametrize("step", ("PUBLISH", "PUBREC"))
def test_qos_2_in_flight_ends_with_its_session(client, topic, name, step):
    one, publisher = client(client_id=name, **KEPT), client()
    one.subscribe((f"$share/g/{topic}", 2))
    publisher.publish(topic, b"x", 2)
    packet_id = one.receive(settle=False).packet_id
    if step == "PUBREC":
        one.send(ack("PUBREC", packet_id))
        one.expect("PUBREL", packet_id)
    other = client()
    other.subscribe((f"$share/g/{topic}", 2))
    one.disconnect(0, {"session_expiry": 0})
    other.nothing_but(publisher)


@v5("3.10.4-3", "4.3.3-7")
def test_qos_2_in_flight_ends_for_a_member_that_left_alone(client, topic, name):
    """The only member unsubscribes in the middle of QoS 2, and the group ends with that: the exchange goes on, and is over when it is."""
    one, publisher = client(client_id=name, **KEPT), client()
    one.subscribe((f"$share/g/{topic}", 2))
    publisher.publish(topic, b"x", 2)
    packet_id = one.receive(settle=False).packet_id
    one.unsubscribe(f"$share/g/{topic}")
    wait_until(lambda: publisher.publish(topic, b"y", 1).reason == 0x10, 10, "the end of the group")
    one.send(ack("PUBREC", packet_id))
    one.expect("PUBREL", packet_id)
    one.send(ack("PUBCOMP", packet_id))
    assert one.settled() == []
    one.disconnect()
    one = client(client_id=name, **KEPT)
    assert one.connack.session_present
    assert one.settled() == []


@v5("4.8.2-6", "4.4.0-2")
@pytest.mark.parametrize(("qos", "kind"), ((1, "PUBACK"), (2, "PUBREC")))
def test_refused_by_one_member_is_refused(client, topic, qos, kind):
    members, publisher = [client(), client()], client()
    for member in members:
        member.subscribe((f"$share/g/{topic}", qos))
    publisher.publish(topic, b"x", qos)
    came = [(member, packet) for member in members for packet in member.settled()]
    assert len(came) == 1
    came[0][0].send(ack(kind, came[0][1].packet_id, 0x80))
    for member in members:
        member.nothing_but(publisher)


@v5("4.8.2-1", "4.5.0-1")
@differs("mosquitto", "gives messages to members who are away", always=False)
def test_what_a_leaving_member_was_not_sent_returns(client, topic, name):
    """A member with a window of two takes two of many and leaves for good: the others get all the rest."""
    slow = client(client_id=name, props={"receive_maximum": 2})
    slow.subscribe((f"$share/g/{topic}", 1))
    publisher = client()
    for at in range(20):
        publisher.publish(topic, b"%d" % at, 1)
    held = {slow.receive(settle=False).payload for _ in range(2)}
    other = client()
    other.subscribe((f"$share/g/{topic}", 1))
    slow.disconnect()
    came = gathered([other], 18)[0]
    assert {b"%d" % at for at in range(20)} - held <= set(came)


@v5("3.3.4-3", "4.8.2-1")
def test_subscription_identifier_of_a_shared_subscription(client, topic):
    one = client()
    one.subscribe((f"$share/g/{topic}", 1), props={"subscription_id": 5})
    one.publish(topic, b"x", 1)
    assert one.receive().props["subscription_id"] == [5]


@v5("3.8.3-4", "4.8.2-1")
def test_retain_as_published_of_a_shared_subscription(client, topic):
    one = client()
    one.subscribe((f"$share/g/{topic}", 1 | 0x08))
    client().publish(topic, b"x", 1, retain=True)
    assert one.receive().retain


@v5("4.8.2-1", "3.1.2-5")
def test_membership_is_resumed(client, topic, name):
    one = client(client_id=name, **KEPT)
    one.subscribe((f"$share/g/{topic}", 1))
    one.disconnect()
    publisher = client()
    publisher.publish(topic, b"away", 1)
    one = client(client_id=name, **KEPT)
    publisher.publish(topic, b"here", 1)
    assert one.payloads(2) == [b"away", b"here"]


@v5("3.1.2-5")
@pytest.mark.parametrize("back", (True, False), ids=("back", "away"))
def test_membership_ends_with_its_session(client, topic, name, back):
    """The time of the only member's session passes: the group ends, whether the client comes back or not."""
    options = {"client_id": name, "clean": False, "props": {"session_expiry": 1}}
    one, publisher = client(**options), client()
    one.subscribe((f"$share/g/{topic}", 2))
    publisher.publish(topic, b"x", 2)
    one.receive(settle=False)
    one.drop()
    assert publisher.publish(topic, b"y", 1).reason == 0
    if back:
        let_pass(2.6)
        assert not client(**options).connack.session_present
    wait_until(lambda: publisher.publish(topic, b"z", 1).reason == 0x10, 5 if back else 40, "the end of the group", every=0.5)
    one = client()
    one.subscribe((f"$share/g/{topic}", 2))
    assert one.settled() == []


@pytest.mark.parametrize("last", ("unsubscribes", "ends"))
@v5("4.3.3-7", "4.8.2-5")
def test_qos_2_in_flight_of_who_left_first_is_nobody_elses(own_broker, topic, name, last):
    """A member leaves the group in the middle of QoS 2, and then the other one. The group is from before the broker started, so that it is
    kept: who subscribes to it next does not get that message."""
    broker, filter = own_broker(), f"$share/g/{topic}"

    def members():
        return [Client(broker.mqtt_address, client_id=f"{name}{at}", **KEPT) for at in range(2)]

    for member in members():
        member.subscribe((filter, 2))
    broker.restart()
    first, second = members()
    publisher = Client(broker.mqtt_address)
    held = {first: [], second: []}

    def both_hold_some():
        publisher.publish(topic, b"held", 2)
        for member, packet_ids in held.items():
            packet_ids += [packet.packet_id for packet in member.settled()]
        return all(held.values())

    wait_until(both_hold_some, 10, "a message for each member")
    first.unsubscribe(filter)
    if last == "unsubscribes":
        second.unsubscribe(filter)
    else:
        second.disconnect(0, {"session_expiry": 0})
        del held[second]
    for member, packet_ids in held.items():
        for packet_id in packet_ids:
            member.send(ack("PUBREC", packet_id))
            member.expect("PUBREL", packet_id)
            member.send(ack("PUBCOMP", packet_id))
        member.settled()
    third = Client(broker.mqtt_address)
    third.subscribe((filter, 2))
    publisher.publish(topic, b"next", 2)
    assert third.receive().payload == b"next"


@pytest.mark.parametrize("how", ("settles", "says goodbye", "starts clean", "expires", "expires meanwhile"))
@v5("4.8.2-5")
def test_qos_2_in_flight_that_ends_while_nobody_serves_its_group(own_broker, topic, name, how):
    """A member leaves the group in the middle of QoS 2, and the broker starts anew. The message ends before anybody else is back: also
    after a second start nobody else gets it."""
    broker, filter = own_broker(), f"$share/g/{topic}"
    expiry = {"expires": 3, "expires meanwhile": 1}.get(how, 600)
    kept = {"client_id": name, "clean": False, "props": {"session_expiry": expiry}}
    stays = {"client_id": f"{name}-stays", "clean": False, "props": {"session_expiry": 600}}
    one, publisher = Client(broker.mqtt_address, **kept), Client(broker.mqtt_address)
    one.subscribe((filter, 2))
    publisher.publish(topic, b"held", 2)
    packet_id = one.receive(settle=False).packet_id
    other = Client(broker.mqtt_address, **stays)
    other.subscribe((filter, 2))
    one.unsubscribe(filter)
    other.disconnect()
    if how == "expires meanwhile":
        one.disconnect()
    broker.stop()
    let_pass(1.5 if how == "expires meanwhile" else 0)
    broker.start()
    if how == "expires meanwhile":
        assert Client(broker.mqtt_address).connack.reason == 0
    elif how == "starts clean":
        one = Client(broker.mqtt_address, client_id=name)
        assert not one.connack.session_present
    elif how == "expires":
        let_pass(3.5)
        assert not Client(broker.mqtt_address, **kept).connack.session_present
    else:
        one = Client(broker.mqtt_address, **kept)
        assert one.receive(settle=how == "settles").packet_id == packet_id
        one.settled()
        one.disconnect(0, {"session_expiry": 0} if how == "says goodbye" else None)
    broker.restart()
    other, publisher = Client(broker.mqtt_address, **stays), Client(broker.mqtt_address)
    assert other.connack.session_present
    publisher.publish(topic, b"next", 2)
    assert other.receive().payload == b"next"
