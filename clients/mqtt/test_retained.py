"""Retained messages: kept, replaced, removed; sent to new subscriptions as their options say."""

import threading

import pytest

from mqtt import packets
from mqtt.link import Client, let_pass
from mqtt.marks import v3, v5
from mqtt.packets import publish

AS_PUBLISHED = 0x08
NEVER, IF_ABSENT = 0x20, 0x10
QOS = pytest.mark.parametrize("qos", (0, 1, 2))


@pytest.fixture
def keep(client, level):
    """Retains a payload and waits until it is, and has been handed to who subscribes already."""

    def make(topic, payload=b"kept", qos=1, **options):
        publisher, witness = client(level), client(level)
        witness.subscribe((topic, 0))
        witness.settled()
        publisher.publish(topic, payload, qos, retain=True, **options)
        witness.receive()
        witness.disconnect()
        publisher.retained_so_far()
        return publisher

    return make


@QOS
@pytest.mark.parametrize("granted", (0, 1, 2))
@v5("3.3.1-5", "3.3.1-9", "3.8.4-8")
@v3("3.3.1-5", "3.3.1-6", "3.3.1-7", "3.3.1-8")
def test_kept_for_new_subscribers(client, keep, level, topic, qos, granted):
    keep(topic, b"kept", qos)
    one = client(level)
    one.subscribe((topic, granted))
    packet = one.receive()
    assert (packet.topic, packet.payload, packet.retain, packet.dup) == (topic, b"kept", True, False)
    assert packet.qos == min(qos, granted)
    assert one.settled() == []


@QOS
@v5("3.3.1-5", "3.3.1-9", "3.3.1-6")
@v3("3.3.1-5", "3.3.1-6", "3.3.1-10")
def test_kept_at_once_for_the_same_connection(client, level, topic, qos):
    """What one connection does is done in order: what it retains, it gets when it subscribes next; what it removes, it does not."""
    one = client(level)
    one.publish(topic, b"kept", qos, retain=True)
    one.subscribe((topic, 1))
    assert one.receive().payload == b"kept"
    one.unsubscribe(topic)
    one.publish(topic, b"", qos, retain=True)
    one.subscribe((topic, 1))
    assert one.settled() == []


@QOS
@v5("3.3.1-5")
@v3("3.3.1-5", "3.3.1-7")
def test_the_newest_replaces(client, keep, level, topic, qos):
    keep(topic, b"old", 2)
    keep(topic, b"new", qos)
    one = client(level)
    one.subscribe((topic, 2))
    packet = one.receive()
    assert (packet.payload, packet.qos) == (b"new", qos)
    assert one.settled() == []


@QOS
@v5("3.3.1-6", "3.3.1-7")
@v3("3.3.1-10", "3.3.1-11")
def test_empty_removes_and_is_delivered(client, keep, level, topic, qos):
    keep(topic, b"kept")
    watcher = client(level)
    watcher.subscribe((topic, 2))
    assert watcher.receive().retain
    publisher = client(level)
    publisher.publish(topic, b"", qos, retain=True)
    packet = watcher.receive()
    assert (packet.payload, packet.retain) == (b"", False)
    publisher.retained_so_far()
    one = client(level)
    one.subscribe((topic, 2))
    assert one.settled() == []


@v5("3.3.1-7")
@v3("3.3.1-11")
def test_empty_where_nothing_is_kept(client, keep, level, topic):
    keep(topic, b"")
    one = client(level)
    one.subscribe((topic, 2))
    assert one.settled() == []


@QOS
@v5("3.3.1-8")
@v3("3.3.1-12")
@pytest.mark.parametrize("payload", (b"passing", b""))
def test_without_the_flag_nothing_is_kept_or_replaced(client, keep, level, topic, qos, payload):
    publisher = keep(topic, b"kept")
    publisher.publish(topic, payload, qos)
    publisher.publish(f"{topic}/other", b"passing", qos)
    publisher.settled()
    one = client(level)
    one.subscribe((topic, 2), (f"{topic}/other", 2))
    assert one.receive().payload == b"kept"
    assert one.settled() == []


@v5("3.3.1-12")
@v3("3.3.1-9")
@QOS
def test_live_delivery_has_no_flag(client, level, topic, qos):
    one, publisher = client(level), client(level)
    one.subscribe((topic, 2))
    publisher.publish(topic, b"live", qos, retain=True)
    assert one.receive().retain is False


@v5("3.3.1-13", "3.3.1-12")
@pytest.mark.parametrize("retain", (False, True))
@QOS
def test_retain_as_published(client, topic, retain, qos):
    one, publisher = client(), client()
    one.subscribe((topic, 2 | AS_PUBLISHED))
    publisher.publish(topic, b"live", qos, retain=retain)
    assert one.receive().retain is retain


@v5("3.3.1-13", "3.3.1-9")
@pytest.mark.parametrize("options", (0, AS_PUBLISHED))
def test_flag_on_what_a_subscription_gets_first(client, topic, options):
    client().publish(topic, b"kept", 1, retain=True)
    one = client()
    one.subscribe((topic, 2 | options))
    assert one.receive().retain is True


@v5("3.3.1-9", "3.8.4-4", "3.8.4-3")
@v3("3.3.1-6", "3.8.4-3")
def test_sent_again_with_each_subscribe(client, keep, level, topic):
    keep(topic)
    one = client(level)
    for _ in range(3):
        one.subscribe((topic, 1))
        assert one.receive().retain
        assert one.settled() == []


@v5("3.3.1-9", "3.8.4-4")
@v3("3.3.1-6", "3.8.4-3")
def test_sent_again_to_a_session_that_has_seen_it(client, level, name, topic):
    """It came as it was published; a SUBSCRIBE asks for it once more, also on the next connection."""
    kept = {"clean": False, **({"props": {"session_expiry": 60}} if level == 5 else {})}
    one = client(level, client_id=name, **kept)
    one.subscribe((topic, 1))
    client().publish(topic, b"x", 1, retain=True)
    assert one.receive().retain is False
    one.settled()
    for _ in range(2):
        one.subscribe((topic, 1))
        assert one.receive().retain is True
    one.disconnect()
    one = client(level, client_id=name, **kept)
    one.subscribe((topic, 1))
    assert one.receive().retain is True
    assert one.settled() == []


def test_published_while_it_is_subscribed_to(client, name, topic):
    """Before or after, the subscriber gets it, once."""
    one, publisher = client(client_id=name, clean=False, props={"session_expiry": 60}), client()
    for at in range(1, 301):
        publisher.send(publish(f"{topic}/{at}", b"%d" % at, 1, at, retain=True))
        one.subscribe((f"{topic}/{at}", 1))
        publisher.expect("PUBACK", at)
        assert one.receive().payload == b"%d" % at
    assert one.settled() == []


@v5("3.3.1-10")
def test_only_if_the_subscription_is_not_there(client, topic):
    client().publish(topic, b"kept", 1, retain=True)
    one = client()
    one.subscribe((topic, 1 | IF_ABSENT))
    assert one.receive().payload == b"kept"
    one.subscribe((topic, 2 | IF_ABSENT))
    assert one.settled() == []
    one.unsubscribe(topic)
    one.subscribe((topic, 2 | IF_ABSENT))
    assert one.receive().payload == b"kept"


@v5("3.3.1-10", "3.1.2-5")
def test_a_resumed_subscription_is_there(client, topic, name):
    kept = {"client_id": name, "clean": False, "props": {"session_expiry": 60}}
    one = client(**kept)
    one.subscribe((topic, 1))
    one.disconnect()
    other = client()
    other.publish(topic, b"kept", 0, retain=True)
    other.retained_so_far()
    one = client(**kept)
    one.subscribe((topic, 1 | IF_ABSENT))
    assert one.settled() == []


@v5("3.3.1-11")
def test_never(client, topic):
    client().publish(topic, b"kept", 1, retain=True)
    one = client()
    one.subscribe((topic, 1 | NEVER))
    assert one.settled() == []
    one.subscribe((topic, 1))
    assert one.receive().retain


@v5("3.3.1-9", "4.7.1-1")
@v3("3.3.1-6", "4.7.1-2")
def test_wildcards_find_all_that_is_kept(client, keep, level, topic):
    names = [f"{topic}/a", f"{topic}/a/b", f"{topic}/c", topic, f"{topic}/$d"]
    for each in names:
        keep(each, each.encode())
    one = client(level)
    one.subscribe((f"{topic}/#", 1))
    packets = one.receive_many(len(names))
    assert one.settled() == []
    assert {packet.topic for packet in packets} == set(names)
    assert all(packet.retain and packet.payload == packet.topic.encode() for packet in packets)
    other = client(level)
    other.subscribe((f"{topic}/+", 1))
    assert {packet.topic for packet in other.receive_many(3)} == {f"{topic}/a", f"{topic}/c", f"{topic}/$d"}
    assert other.settled() == []


@v5("3.3.1-9")
@v3("3.3.1-6")
def test_one_set_for_each_filter_of_a_subscribe(client, keep, level, topic):
    """Two overlapping filters in one SUBSCRIBE: each brings what is kept, or the broker sends it once."""
    keep(f"{topic}/a")
    one = client(level)
    one.subscribe((f"{topic}/a", 1), (f"{topic}/+", 1))
    came = [one.receive()] + one.settled()
    assert [packet.payload for packet in came] in ([b"kept"], [b"kept"] * 2)


@v3("3.1.2-7")
@v5("4.1.0-2", "3.3.1-5")
def test_kept_when_its_session_has_ended(client, level, topic):
    publisher = client(level)
    publisher.publish(topic, b"kept", 1, retain=True)
    publisher.disconnect()
    one = client(level)
    one.subscribe((topic, 1))
    assert one.receive().payload == b"kept"


@v5("3.3.2-5", "3.3.2-6")
def test_kept_until_it_expires(client, topic):
    client().publish(topic, b"short", 1, retain=True, props={"message_expiry": 1})
    client().publish(f"{topic}/long", b"long", 1, retain=True, props={"message_expiry": 60})
    let_pass(2.1)
    one = client()
    one.subscribe((f"{topic}/#", 1))
    packet = one.receive()
    assert (packet.payload, packet.retain) == (b"long", True)
    assert 50 <= packet.props["message_expiry"] <= 58
    assert one.settled() == []


@v5("3.3.2-4", "3.3.2-15", "3.3.2-16", "3.3.2-17", "3.3.2-18", "3.3.2-20")
def test_kept_with_its_properties(client, topic):
    props = {
        "payload_format": 1,
        "content_type": "text/plain",
        "response_topic": "answers/here",
        "correlation_data": b"\0\xff7",
        "user": [("b", "2"), ("a", "1"), ("b", "2")],
    }
    client().publish(topic, b"kept", 1, retain=True, props=props)
    one = client()
    one.subscribe((topic, 1))
    assert one.receive().props == props


@v5("3.3.1-5", "3.3.4-3")
def test_kept_with_the_identifier_of_who_asks(client, topic):
    client().publish(topic, b"kept", 1, retain=True)
    one = client()
    one.subscribe((topic, 1), props={"subscription_id": 300})
    assert one.receive().props["subscription_id"] == [300]


@v5("3.3.1-5")
@v3("3.3.1-5", "3.1.2-7")
def test_kept_over_a_restart(own_broker, level, topic):
    broker = own_broker()
    publisher = Client(broker.mqtt_address, level)
    publisher.publish(topic, b"kept", 1, retain=True)
    publisher.publish(f"{topic}/gone", b"x", 1, retain=True)
    publisher.publish(f"{topic}/gone", b"", 1, retain=True)
    broker.restart()
    one = Client(broker.mqtt_address, level)
    one.subscribe((f"{topic}/#", 1))
    assert one.receive().payload == b"kept"
    assert one.settled() == []


@v5("3.3.1-9", "3.8.4-4")
@v3("3.3.1-6")
def test_nothing_older_behind_something_newer(client, level, topic):
    """Subscribing while somebody publishes: the last packet is the newest, and none goes backwards."""
    publisher = client(level)
    publisher.publish(topic, b"0", 1, retain=True)
    for round_of in range(10):
        one = client(level)
        one.send(b"")
        start = round_of * 5
        publisher.publish(topic, b"%d" % (start + 1), 1, retain=True)
        one.subscribe((topic, 1))
        for at in range(start + 2, start + 6):
            publisher.publish(topic, b"%d" % at, 1, retain=True)
        came = [int(one.receive().payload)]
        while came[-1] != start + 5:
            came.append(int(one.receive().payload))
        assert came == sorted(set(came))
        one.disconnect()


@v5("3.3.1-9")
def test_kept_comes_to_who_publishes_without_pause(own_broker, topic):
    """A client that floods the broker gets what its subscription is to be sent first, while it goes on."""
    count, address = 3_000, own_broker().mqtt_address
    publisher = Client(address)
    publisher.send(b"".join(packets.publish(f"{topic}/{at}", b"kept", 0, retain=True) for at in range(count)))
    publisher.retained_so_far()
    one, over = Client(address), threading.Event()
    flood = packets.publish(f"flood/{topic}", b"x" * 10, 0) * 10_000

    def pour():
        one.socket.settimeout(30)
        while not over.is_set():
            one.socket.sendall(flood)

    one.send(packets.subscribe(1, [(f"{topic}/+", 0)]))
    pouring = threading.Thread(target=pour)
    pouring.start()
    try:
        came = {one.receive(seconds=20).topic for _ in range(count)}
    finally:
        over.set()
        pouring.join()
    assert len(came) == count
