"""Wildcards, levels and topics that begin with $: which filter gets which topic."""

import pytest

from mqtt import packets
from mqtt.link import Closed
from mqtt.marks import v3, v5
from mqtt.packets import publish, subscribe

# A filter, topics it gets, topics it does not; T stands for a level of the test's own.
MATCHES = [
    ("T", ["T"], ["T/", "T/a", "/T", "t"]),
    ("T/#", ["T", "T/", "T/a", "T/a/b", "T//"], ["Tx", "/T"]),
    ("T/+", ["T/", "T/a"], ["T", "T/a/", "T/a/b", "T//"]),
    ("T/+/", ["T/a/", "T//"], ["T/a", "T/a/b"]),
    ("T/+/c", ["T/a/c", "T//c"], ["T/c", "T/a/b/c"]),
    ("T/+/+", ["T/a/b", "T//"], ["T/a", "T/a/b/c"]),
    ("T/+/#", ["T/a", "T/a/b", "T/"], ["T"]),
    ("T/a/#", ["T/a", "T/a/b"], ["T", "T/ab"]),
    ("/T/#", ["/T", "/T/a"], ["T", "T/a"]),
    ("/+/T", ["//T", "/a/T"], ["a/T", "/T"]),
    ("+/T", ["/T", "a/T"], ["T", "//T", "$a/T"]),
    ("+/+/T", ["//T", "a/b/T"], ["/T", "$a/b/T"]),
    ("T/a b", ["T/a b"], ["T/ab", "T/a  b"]),
    ("T/A", ["T/A"], ["T/a"]),
    ("T//a", ["T//a"], ["T/a", "T///a"]),
    ("T/", ["T/"], ["T", "T//"]),
    ("T/*", ["T/*"], ["T/a"]),
    ("T/>", ["T/>"], ["T/a", "T/a/b"]),
    ("T/%2B", ["T/%2B"], ["T/+x", "T/%2b"]),
    ("T/a.b", ["T/a.b"], ["T/a/b", "T/axb"]),
    ("T/$a", ["T/$a"], ["T/a"]),
    ("T/+/$b", ["T/a/$b", "T/$a/$b"], ["T/a/b"]),
    ("T/#", ["T/$a", "T/$SYS/x"], []),
]


@pytest.mark.parametrize(("filter", "hits", "misses"), MATCHES, ids=[f"{one[0]}-{at}" for at, one in enumerate(MATCHES)])
@v5("4.7.0-1", "4.7.1-1", "4.7.1-2", "4.7.2-1", "4.7.3-4", "3.3.2-3", "4.5.0-1")
@v3("4.7.1-1", "4.7.1-2", "4.7.1-3", "4.7.2-1", "4.7.3-4", "3.3.2-3", "3.8.3-2")
def test_matches(client, level, topic, filter, hits, misses):
    one, publisher = client(level), client(level)
    one.subscribe((filter.replace("T", topic), 1))
    hits = [each.replace("T", topic) for each in hits]
    for each in misses:
        if "+" not in each:
            publisher.publish(each.replace("T", topic), b"miss", 1)
    for each in hits:
        publisher.publish(each, b"hit", 1)
    assert [one.receive().topic for _ in hits] == hits
    one.nothing_but(publisher)


@pytest.mark.parametrize("filter", ("#", "+/#", "+/+"))
@v5("4.7.2-1")
@v3("4.7.2-1")
def test_wildcards_do_not_see_dollar_topics(client, level, topic, filter):
    """$SYS itself may be published to all the time: no topic with a $ in front comes."""
    one, publisher = client(level), client(level)
    one.subscribe((filter, 1))
    publisher.publish(f"a/{topic}", b"x", 1)
    while (packet := one.receive()).topic != f"a/{topic}":
        assert not packet.topic.startswith("$")
    assert not any(packet.topic and packet.topic.startswith("$") for packet in one.settled())


@v5("4.7.2-1")
@v3("4.7.2-1")
@pytest.mark.parametrize("filter", ("$SYS/#", "$SYS/+/#"))
def test_sys_is_there_for_those_who_ask(client, level, filter):
    one = client(level)
    answer = one.ask_subscribe((filter, 0))
    assert answer.reasons == [0]
    assert one.receive().topic.startswith("$SYS/")


@v5("4.7.2-1")
@v3("4.7.2-1", "3.3.5-2")
@pytest.mark.parametrize("place", ("$SYS/{}", "$SYS/broker/{}"))
def test_publish_to_sys(client, raw, level, place, topic):
    """Clients have no business there: refused with 0x87 (or 0x90) or dropped, acknowledged at 3.1.1; never handed to a subscriber."""
    one, publisher = client(level), client(level)
    one.subscribe((place.format(topic), 1))
    try:
        answer = publisher.publish(place.format(topic), b"x", 1)
        assert answer.reason in (0, 0x10, 0x83, 0x87, 0x90)
    except Closed:
        pass
    assert one.settled() == []


@v5("4.8.2-1")
@pytest.mark.parametrize("qos", (0, 1))
def test_publish_to_share(client, topic, qos):
    one, publisher = client(), client()
    one.subscribe((f"$share/g/{topic}", 1))
    publisher.send(publish(f"$share/g/{topic}", b"x", qos, 4 if qos else None))
    packet = publisher.read_or_closed()
    if qos and packet is not None:
        assert packet.reason in (0x87, 0x90)
    assert one.settled() == []


@v5("4.7.3-4")
@v3("4.7.3-4")
def test_topics_are_told_apart_by_every_letter(client, level, topic):
    others = ["a", "A", "á", " a", "a ", "a/", "/a", "a//", "%61", "\u200ba", "ａ"]
    one, publisher = client(level), client(level)
    for each in others:
        one.subscribe((f"{topic}/{each}", 0))
        publisher.publish(f"{topic}/{each}", each.encode(), 1)
        packet = one.receive()
        assert (packet.topic, packet.payload) == (f"{topic}/{each}", each.encode())
    assert one.settled() == []


@v5("4.7.1-1", "4.7.1-2", "4.5.0-1")
@v3("4.7.1-2", "4.7.1-3", "4.5.0-1")
def test_the_filters_every_user_tries(client, level, topic):
    """The examples of orders, with their expected sets."""
    tail = "1.1/icecream/udders/rumraisin/sg/lazada"
    subjects = {state: f"{topic}/order/{state}/{tail}" for state in ("init", "valid", "shipped")}
    wanted = {
        f"{topic}/order/init/1.1/#": {"init"},
        f"{topic}/order/valid/+/icecream/+/+/sg/+": {"valid"},
        f"{topic}/order/#": {"init", "valid", "shipped"},
    }
    publisher = client(level)
    for filter, states in wanted.items():
        one = client(level)
        one.subscribe((filter, 1))
        for state in subjects:
            publisher.publish(subjects[state], state.encode(), 1)
        assert {packet.payload.decode() for packet in one.receive_many(len(states))} == states
        one.nothing_but(publisher)


@v5("4.7.1-2")
@v3("4.7.1-3")
def test_many_levels(client, level, topic):
    deep = "/".join([topic, *"abcdefghij" * 8])
    one, publisher = client(level), client(level)
    one.subscribe(("/".join([topic, *"+" * 80]), 0), (f"{topic}/a/#", 1))
    publisher.publish(deep, b"deep", 1)
    assert one.receive().topic == deep


@v5("3.3.2-3", "4.13.1-1")
@v3("4.8.0-1")
def test_a_refused_filter_leaves_the_rest(client, level, topic):
    """Another connection's bad filter does nothing to this one's good one."""
    one, bad = client(level), client(level)
    one.subscribe(topic)
    bad.send(subscribe(1, [("a/#/b", 0)], level), packets.PINGREQ)
    one.publish(topic, b"x", 1)
    assert one.receive().payload == b"x"
