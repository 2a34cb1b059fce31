"""MQTT over WebSocket: the opening on /mqtt, and frames that are cut where they please."""

import pytest

from mqtt import packets
from mqtt.link import Client, Link
from mqtt.marks import v3, v5
from mqtt.packets import connect, publish, subscribe
from mqtt.websocket import BINARY, CONTINUED, PING, TEXT, Refused, Socket


@pytest.fixture
def link(ws_broker):
    """Opens WebSockets; each gives a link on which nothing was sent."""
    made = []

    def make(level=5, **options):
        made.append(Link(None, level, sock=Socket(ws_broker.ws_address, **options)))
        return made[-1]

    yield make
    for one in made:
        one.socket.close()


@pytest.mark.parametrize("protocols", ("mqtt", "chat, mqtt", "mqttv3.1, mqtt"))
@v5("6.0.0-3", "6.0.0-4")
@v3("6.0.0-3", "6.0.0-4")
def test_the_sub_protocol_is_mqtt(link, protocols):
    assert link(protocols=protocols).socket.headers["sec-websocket-protocol"] == "mqtt"


@pytest.mark.parametrize("protocols", (None, "chat"))
@v5("6.0.0-3", "6.0.0-4")
@v3("6.0.0-3", "6.0.0-4")
def test_without_the_sub_protocol(ws_broker, protocols):
    """Refused, or accepted without naming one that was not offered."""
    try:
        opened = Socket(ws_broker.ws_address, protocols=protocols)
    except Refused:
        return
    assert "sec-websocket-protocol" not in opened.headers
    opened.close()


def test_another_path_is_none(ws_broker):
    with pytest.raises(Refused):
        Socket(ws_broker.ws_address, path="/elsewhere")


@v5("6.0.0-1", "6.0.0-2", "4.2.0-1")
@v3("6.0.0-1", "6.0.0-2")
@pytest.mark.parametrize("qos", (0, 1, 2))
def test_publish_and_subscribe(ws_broker, client, level, topic, qos):
    one = Client(None, level, sock=Socket(ws_broker.ws_address))
    plain = client(level)
    for each in (one, plain):
        each.subscribe((topic, 2))
    one.publish(topic, b"from the web", qos)
    assert (one.receive().payload, plain.receive().payload) == (b"from the web",) * 2
    plain.publish(topic, b"x" * 200_000, qos)
    assert one.receive().payload == b"x" * 200_000
    one.disconnect()


@v5("6.0.0-2")
@v3("6.0.0-2")
@pytest.mark.parametrize("size", (1, 2, 7))
def test_packets_in_many_frames(link, level, topic, size):
    one = link(level)
    data = connect("", level) + subscribe(1, [(topic, 0)], level) + publish(topic, b"cut", level=level)
    for at in range(0, len(data), size):
        one.socket.frame(BINARY, data[at : at + size])
    one.next("CONNACK")
    one.expect("SUBACK")
    assert one.expect("PUBLISH").payload == b"cut"


@v5("6.0.0-2")
@v3("6.0.0-2")
def test_many_packets_in_one_frame(link, level, topic):
    one = link(level)
    many = [publish(topic, b"%d" % at, level=level) for at in range(50)]
    one.socket.frame(BINARY, b"".join([connect("", level), subscribe(1, [(topic, 0)], level), *many]))
    one.next("CONNACK")
    assert [one.expect("PUBLISH").payload for _ in range(50)] == [b"%d" % at for at in range(50)]


@v5("6.0.0-2")
@v3("6.0.0-2")
def test_continued_and_empty_frames(link, level):
    """A message in three frames, an empty one between them, and a ping of WebSocket in the middle."""
    one = link(level)
    data = connect("", level)
    one.socket.frame(BINARY, data[:3], final=False)
    one.socket.frame(PING, b"are you there")
    one.socket.frame(CONTINUED, b"", final=False)
    one.socket.frame(CONTINUED, data[3:] + packets.PINGREQ)
    one.next("CONNACK")
    one.next("PINGRESP")
    assert one.socket.pongs == [b"are you there"]


@v5("6.0.0-1")
@v3("6.0.0-1")
@pytest.mark.parametrize("connected", (False, True))
def test_text_frames_close(link, level, connected):
    one = link(level)
    if connected:
        one.send(connect("", level))
        one.next("CONNACK")
    one.socket.frame(TEXT, packets.PINGREQ if connected else connect("", level))
    one.expect_close(0x81, 0x82)


@v5("4.13.1-1")
@v3("4.8.0-1")
def test_frames_that_are_not_masked_close(link, level):
    one = link(level)
    one.socket.frame(BINARY, connect("", level), masked=False)
    one.gone()


@v5("4.13.1-1", "3.1.0-2")
@v3("4.8.0-1", "3.1.0-2")
def test_protocol_errors_close(link, level):
    one = link(level)
    one.send(connect("", level))
    one.next("CONNACK")
    one.send(connect("", level))
    one.expect_close(0x82)


def test_before_connect_nothing_large_is_taken(link):
    """What a client sends is not kept until its message is whole."""
    for payload, claimed in ((b"", 100 << 20), (bytes(500_000), 1_000_000)):
        one = link(4)
        one.socket.tcp.sendall(bytes([0x82, 0xFF]) + claimed.to_bytes(8, "big") + bytes(4) + payload)
        one.gone()


def test_plain_http_is_refused(ws_broker):
    import http.client

    for path in ("/", "/mqtt"):
        asked = http.client.HTTPConnection(*ws_broker.ws_address, timeout=10)
        asked.request("GET", path)
        assert 400 <= asked.getresponse().status < 500
        asked.close()
