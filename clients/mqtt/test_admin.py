"""Sessions and retained messages listed, shown and removed with the tools that everybody has."""

import json
import os
import subprocess

import pytest
import server as servers
from conftest import had
from waiting import wait_until

from mqtt import packets
from mqtt.link import Client
from mqtt.packets import Will

ALL = "$SYS/broker/sessions"
KEPT = {"clean": False, "props": {"session_expiry": 3600}}
pytestmark = pytest.mark.skipif(bool(servers.MQTT_PEER_COMMAND or os.environ.get("FIRTH_MQTT_PEER")), reason="a feature of Firth")


def shown(link, text):
    """What is known of sessions, by client identifier: a description and the topic it came under."""
    link.subscribe((text, 1))
    found = {}
    for packet in link.settled():
        assert packet.retain and packet.qos == 0, packet
        described = json.loads(packet.payload)
        assert described["client_id"] not in found, "twice"
        found[described["client_id"]] = described | {"topic": packet.topic}
    link.unsubscribe(text)
    return found


def remove(link, name, qos=1):
    return link.publish(f"{ALL}/{name}", b"", qos, retain=True)


def test_a_session_is_shown_connected_and_not(client, topic, name):
    one = client(4, client_id=name, clean=False)
    one.subscribe((f"{topic}/+", 1), (f"{topic}/b", 2), (f"{topic}/c", 0), (f"$share/g/{topic}", 1))
    admin = client()
    there = shown(admin, f"{ALL}/{name}")[name]
    filters = [{"filter": f"$share/g/{topic}", "qos": 1}]
    filters += [{"filter": f"{topic}/+", "qos": 1}, {"filter": f"{topic}/b", "qos": 2}, {"filter": f"{topic}/c", "qos": 0}]
    expected = {"connected": True, "version": "3.1.1", "kept": True, "expiry_s": None, "subscriptions": 4, "filters": filters}
    assert expected.items() <= there.items() and there["topic"] == f"{ALL}/{name}", there
    assert there["address"] == "{}:{}".format(*one.socket.getsockname()), there
    assert (there["in_flight"], there["waiting"]) == (0, 0), there
    one.drop()
    for payload in (b"1", b"2", b"3"):
        admin.publish(f"{topic}/a", payload, 1)

    def away():
        return not shown(admin, f"{ALL}/{name}")[name]["connected"]

    wait_until(away, 10, "gone")
    there = shown(admin, f"{ALL}/{name}")[name]
    expected = {"connected": False, "kept": True, "expiry_s": None, "subscriptions": 4, "filters": filters, "in_flight": 0, "waiting": 3}
    assert expected.items() <= there.items(), there
    assert 0 <= there["away_s"] < 60 and "version" not in there and "address" not in there, there


def test_a_session_that_ends_with_its_connection_is_shown(client, name, topic):
    one = client(5, client_id=name)
    one.subscribe((topic, 1))
    one.publish(topic, b"x", 1)
    one.receive(settle=False)
    there = shown(client(), f"{ALL}/{name}")[name]
    expected = {"connected": True, "version": "5.0", "kept": False, "expiry_s": 0, "in_flight": 1, "subscriptions": 1}
    assert expected.items() <= there.items(), there
    one.disconnect()
    assert shown(client(), f"{ALL}/{name}") == {}


@pytest.mark.parametrize("end", ("#", "+", "+/#"))
def test_all_are_listed(client, topic, end):
    names = {f"{topic}{at}" for at in range(150)}
    for at, name in enumerate(sorted(names)):
        one = client(5, client_id=name, **(KEPT if at % 3 else {}))
        if at % 3 == 2:
            one.drop()
    found = shown(client(), f"{ALL}/{end}")
    assert names <= set(found)


@pytest.mark.parametrize("text", ("$SYS/#", "$SYS/broker/#", "$SYS/broker/+/#", "$SYS/+/sessions/#", "#"))
def test_only_who_names_them_gets_them(client, name, text):
    client(5, client_id=name)
    admin = client()
    admin.subscribe((text, 1))
    assert not [packet for packet in admin.settled() if packet.topic.startswith(ALL)]


def test_odd_names_are_one_level(client, topic):
    name = f"{topic}/+/#/%2F/é"
    client(5, client_id=name, **KEPT).drop()
    admin = client()
    under = f"{topic}%2F%2B%2F%23%2F%252F%2Fé"
    assert shown(admin, f"{ALL}/{under}")[name]["topic"] == f"{ALL}/{under}"
    assert remove(admin, under).reason == 0
    assert shown(admin, f"{ALL}/{under}") == {}


@pytest.mark.parametrize("qos", (0, 1, 2))
def test_a_session_that_is_away_is_removed(client, topic, name, qos):
    one = client(5, client_id=name, **KEPT)
    one.subscribe((topic, 1))
    one.drop()
    admin = client()
    assert remove(admin, name, qos) is None if qos == 0 else remove(admin, name, qos).reason == 0
    wait_until(lambda: shown(admin, f"{ALL}/{name}") == {}, 10, "removed")
    assert not client(5, client_id=name, **KEPT).connack.session_present


@pytest.mark.parametrize("level", (4, 5))
def test_who_is_connected_is_sent_away(client, level, topic, name):
    watcher = client()
    watcher.subscribe((f"{topic}/will", 1))
    one = client(level, client_id=name, will=Will(f"{topic}/will", b"gone", 1, props={"will_delay": 60} if level == 5 else None), **KEPT)
    one.subscribe((topic, 1))
    assert remove(client(), name).reason == 0
    said = one.expect_close(0x98)
    assert (said is not None) == (level == 5)
    assert watcher.receive().payload == b"gone"
    assert shown(client(), f"{ALL}/{name}") == {}
    assert not client(level, client_id=name, **KEPT).connack.session_present


def test_the_will_of_who_is_away_is_published(client, topic, name):
    watcher = client()
    watcher.subscribe((topic, 1))
    one = client(5, client_id=name, will=Will(topic, b"gone", 1, props={"will_delay": 3000}), **KEPT)
    one.drop()
    watcher.nothing_but(client())
    remove(client(), name)
    assert watcher.receive().payload == b"gone"


def test_nobody_is_removed_by_mistake(client, topic, name):
    client(5, client_id=name, **KEPT).drop()
    admin = client()
    assert admin.publish(f"{ALL}/{name}", b"x", 1, retain=True).reason == 0x87
    assert admin.publish(f"{ALL}/{name}", b"", 1).reason == 0x87
    assert admin.publish(f"{ALL}/{name}/more", b"", 1, retain=True).reason == 0x87
    assert admin.publish(ALL, b"", 1, retain=True).reason == 0x87
    assert remove(admin, f"{topic}-nobody").reason == 0x10
    assert list(shown(admin, f"{ALL}/{name}")) == [name]


def test_who_removes_itself_is_gone(client, name):
    one = client(5, client_id=name, **KEPT)
    one.send(packets.publish(f"{ALL}/{name}", b"", 1, 7, retain=True))
    one.expect_close(0x98)
    assert shown(client(), f"{ALL}/{name}") == {}


def test_removed_is_removed_after_a_crash(own_broker, topic, name):
    broker = own_broker()
    one = Client(broker.mqtt_address, client_id=name, **KEPT)
    one.subscribe((topic, 1))
    assert remove(Client(broker.mqtt_address), name).reason == 0
    broker.kill9()
    broker.start()
    assert shown(Client(broker.mqtt_address), f"{ALL}/{name}") == {}
    assert not Client(broker.mqtt_address, client_id=name, **KEPT).connack.session_present


@pytest.fixture
def tool(broker):
    """Runs mosquitto's tools; gives the lines that they print."""
    have = had("mosquitto")

    def run(which, *arguments):
        host, port = broker.address
        command = [have[which], "-h", host, "-p", str(port), *arguments]
        environment = {**os.environ, "LD_LIBRARY_PATH": have["libraries"]}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=20)
        assert not done.stderr or "Timed out" in done.stderr, done.stderr
        return done.stdout.splitlines()

    return run


def test_sessions_with_mosquittos_tools(tool, client, topic, name):
    for end in "ab":
        client(5, client_id=f"{name}{end}", **KEPT).drop()
    listed = tool("subscribe", "-t", f"{ALL}/#", "-W", "1", "-F", "%t")
    assert {f"{ALL}/{name}a", f"{ALL}/{name}b"} <= set(listed)
    tool("publish", "-t", f"{ALL}/{name}a", "-r", "-n", "-q", "1")
    assert tool("subscribe", "-t", f"{ALL}/{name}a", "-W", "1") == []
    tool("subscribe", "-t", f"{ALL}/{name}b", "--remove-retained", "-W", "1")
    assert tool("subscribe", "-t", f"{ALL}/{name}b", "-W", "1") == []


def test_retained_messages_with_mosquittos_tools(tool, topic):
    for end in "abc":
        tool("publish", "-t", f"{topic}/{end}", "-m", end, "-r", "-q", "1")
    assert tool("subscribe", "-t", f"{topic}/#", "--retained-only", "-W", "1", "-v") == [f"{topic}/{end} {end}" for end in "abc"]
    tool("publish", "-t", f"{topic}/a", "-n", "-r", "-q", "1")
    tool("subscribe", "-t", f"{topic}/b", "--remove-retained", "-W", "1")
    assert tool("subscribe", "-t", f"{topic}/#", "--retained-only", "-W", "1") == ["c"]
