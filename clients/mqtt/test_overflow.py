"""What sessions and slow clients lose when they hold too much: from the end that the settings say, counted, and nobody else anything."""

import pytest
from server import MQTT_PEER_COMMAND, Server
from waiting import wait_until

from mqtt import packets
from mqtt.link import Client, Closed

KEPT = {"clean": False, "props": {"session_expiry": 3600}}
LIMIT = 100
DROPPED = "$SYS/broker/publish/messages/dropped"
OF_QUEUES = "$SYS/broker/queue/messages/dropped"


@pytest.fixture
def limited(tmp_path):
    if MQTT_PEER_COMMAND:
        pytest.skip("the settings are Firth's own")
    servers = []

    def make(**settings):
        settings = {f"mqtt.{name}": value for name, value in settings.items()}
        one = Server(tmp_path / str(len(servers)), mqtt=True, settings=settings)
        one.start()
        servers.append(one)
        return one

    yield make
    for one in servers:
        said = one.said()
        one.stop()
        assert "panicked" not in said, said


def counts(server):
    """(all that was dropped, of it what sessions had stored), as `$SYS` says it."""
    reader = Client(server.mqtt_address, 5)
    reader.subscribe((DROPPED, 0), (OF_QUEUES, 0))
    came = {packet.topic: int(packet.payload) for packet in reader.settled() if packet.kind == "PUBLISH"}
    reader.drop()
    return came[DROPPED], came[OF_QUEUES]


def dropped(server, count):
    wait_until(lambda: counts(server)[1] >= count, 20, lambda: f"{count} dropped, {counts(server)} were")
    assert counts(server) == (count, count)


def away(server, name, topic):
    """A kept session whose client left."""
    one = Client(server.mqtt_address, 5, client_id=name, **KEPT)
    one.subscribe((topic, 1))
    one.disconnect()


def publish(server, topic, numbers, size=0):
    writer = Client(server.mqtt_address, 5)
    for number in numbers:
        writer.publish(topic, b"%d" % number + b" " * size, 1)
    writer.disconnect()


def rest(one, last=None):
    """Numbers of all messages up to a marker that is published behind them, or that came until `last`."""
    numbers = []
    while not numbers or numbers[-1] != last:
        numbers.append(int(one.receive().payload))
    return numbers


@pytest.mark.parametrize("drops", ["oldest", "newest"])
def test_a_session_over_its_limit(limited, drops):
    server = limited(queue_records_max=LIMIT, queue_drops=drops)
    away(server, "gone", "a/#")
    here = Client(server.mqtt_address, 5, client_id="here", **KEPT)
    here.subscribe(("a/#", 1))
    numbers = list(range(300))
    for part in (numbers[:150], numbers[150:]):
        publish(server, "a/b", part)
        assert [int(here.receive().payload) for _ in part] == part, "who is there loses nothing"
    here.settled()
    here.disconnect()
    dropped(server, 200)
    assert "a queue is over its limit" in server.said() and "mqtt/gone" in server.said() and "mqtt/here" not in server.said()
    if drops == "newest":
        server.kill9()
        server.start()
    gone = Client(server.mqtt_address, 5, client_id="gone", **KEPT)
    expected = numbers[-LIMIT:] if drops == "oldest" else numbers[:LIMIT]
    assert rest(gone, expected[-1]) == expected
    publish(server, "a/b", [1000])
    assert rest(gone, 1000) == [1000]


def test_several_subscriptions_lose_by_the_order_of_the_log(limited):
    server = limited(queue_records_max=LIMIT)
    one = Client(server.mqtt_address, 5, client_id="gone", **KEPT)
    one.subscribe(("a", 1), ("b", 1), ("c", 1))
    one.disconnect()
    writer = Client(server.mqtt_address, 5)
    for number in range(300):
        writer.publish("abc"[number * number % 3], b"%d" % number, 1)
    dropped(server, 200)
    gone = Client(server.mqtt_address, 5, client_id="gone", **KEPT)
    assert rest(gone, 299) == list(range(200, 300))


def test_a_limit_in_bytes(limited):
    server = limited(queue_bytes_max=200_000)
    away(server, "gone", "a")
    publish(server, "a", range(100), size=10_000)
    wait_until(lambda: counts(server)[1] >= 80, 20, lambda: f"80 dropped, {counts(server)} were")
    gone = Client(server.mqtt_address, 5, client_id="gone", **KEPT)
    came = rest(gone, 99)
    assert came == list(range(100 - len(came), 100)) and 17 <= len(came) <= 20, came


def test_who_is_connected_and_slow(limited):
    """What may be with the client stays; of what waits behind it the oldest goes."""
    server = limited(queue_records_max=LIMIT, in_flight_max=5)
    slow = Client(server.mqtt_address, 5, client_id="slow", clean=False, props={"session_expiry": 3600})
    slow.subscribe(("a", 1))
    publish(server, "a", range(300))
    dropped(server, 195)
    first = [slow.receive(settle=False) for _ in range(5)]
    assert [int(packet.payload) for packet in first] == list(range(5))
    for packet in first:
        slow.send(packets.ack("PUBACK", packet.packet_id))
    assert rest(slow, 299) == list(range(200, 300))
    assert slow.settled() == []


@pytest.mark.parametrize("policy", ["drop_newest", "drop_oldest", "disconnect"])
def test_a_client_that_does_not_read(limited, policy):
    """40 MB of QoS 0 to a client that stands still, beside one that does not."""
    server = limited(live_overflow=policy)
    slow, good = Client(server.mqtt_address, 5), Client(server.mqtt_address, 5)
    slow.subscribe(("a", 0))
    good.subscribe(("a", 0))
    writer, count, got = Client(server.mqtt_address, 5), 4000, []
    for at in range(0, count, 100):
        for number in range(at, at + 100):
            writer.publish("a", b"%d" % number + b" " * 10_000, 0)
        got += [int(good.receive().payload) for _ in range(100)]
    assert got == list(range(count))
    numbers = []
    try:
        writer.publish("a", b"-1", 1)
        while not numbers or numbers[-1] not in (-1, count - 1):
            numbers.append(int(slow.receive(seconds=3).payload))
    except (Closed, AssertionError):
        pass
    lost = counts(server)[0]
    assert lost > 0
    if policy == "drop_newest":
        assert numbers[:500] == list(range(500)), numbers[:3]
    elif policy == "drop_oldest":
        assert numbers[-1] in (-1, count - 1) and len(numbers) < count
    else:
        slow.inbox.clear()
        assert not any(number == count - 1 for number in numbers)
    if policy != "disconnect":
        wait_until(lambda: "live messages were dropped" in server.said(), 20, lambda: f"what the log says: {server.said()}")
