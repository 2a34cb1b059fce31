"""Limits both ways: receive maximum, maximum packet size, what a client did not ask to be told, and clients that do not read."""

import pytest

from mqtt import packets
from mqtt.link import Client
from mqtt.marks import differs, v3, v5
from mqtt.packets import ack, publish


COUNTED_TWICE = differs("mosquitto", "loses count of the window once places in it were freed")
WINDOWS = [
    *((1, qos) for qos in ((1, 1), (1, 2), (2, 2))),
    *(pytest.param(window, qos, marks=COUNTED_TWICE) for window in (2, 10) for qos in ((1, 1), (1, 2), (2, 2))),
]


@pytest.mark.parametrize(("window", "qos"), WINDOWS)
@v5("3.3.4-9", "3.3.4-10", "4.9.0-1", "4.9.0-2", "4.9.0-3")
def test_receive_maximum_of_the_client(client, topic, window, qos):
    """Never more in flight than allowed, QoS 1 and 2 together; what is settled makes room for the next."""
    one, publisher = client(props={"receive_maximum": window}), client()
    one.subscribe((topic, 2))
    wanted = [b"%d" % at for at in range(3 * window)]
    for at, payload in enumerate(wanted):
        publisher.publish(topic, payload, qos[at % 2])
    payloads = []
    while len(payloads) < len(wanted):
        came = [one.receive(settle=False) for _ in range(window)]
        assert one.settled() == []
        for packet in came:
            payloads.append(packet.payload)
            if packet.qos == 2:
                one.send(ack("PUBREC", packet.packet_id))
                one.expect("PUBREL", packet.packet_id)
        for packet in came:
            one.send(ack("PUBACK" if packet.qos == 1 else "PUBCOMP", packet.packet_id))
    assert payloads == wanted
    assert one.settled() == []


@v5("4.9.0-1", "4.9.0-2", "3.3.4-9")
@COUNTED_TWICE
def test_pubrec_alone_frees_no_place(client, topic):
    one, publisher = client(props={"receive_maximum": 2}), client()
    one.subscribe((topic, 2))
    for at in range(4):
        publisher.publish(topic, b"%d" % at, 2)
    first = one.receive(settle=False)
    one.receive(settle=False)
    one.send(ack("PUBREC", first.packet_id))
    one.expect("PUBREL", first.packet_id)
    assert one.settled() == []
    one.send(ack("PUBCOMP", first.packet_id))
    assert one.receive(settle=False).payload == b"2"
    assert one.settled() == []


@v5("3.3.4-10", "4.9.0-3")
def test_a_full_window_of_the_client_delays_nothing_else(client, topic):
    one, publisher = client(props={"receive_maximum": 1}), client()
    one.subscribe((topic, 2))
    publisher.publish(topic, b"held", 1)
    publisher.publish(topic, b"next", 1)
    held = one.receive(settle=False)
    assert one.settled() == []
    one.subscribe(f"{topic}/other")
    assert one.unsubscribe(f"{topic}/other").reasons == [0]
    assert one.publish(f"{topic}/none", b"x", 1).kind == "PUBACK"
    assert one.publish(f"{topic}/none", b"x", 2).kind == "PUBCOMP"
    one.send(ack("PUBACK", held.packet_id))
    assert one.receive().payload == b"next"


@v5("4.9.0-1", "4.9.0-2", "3.3.4-9")
def test_negative_pubrec_frees_a_place(client, topic):
    one, publisher = client(props={"receive_maximum": 1}), client()
    one.subscribe((topic, 2))
    publisher.publish(topic, b"1", 2)
    publisher.publish(topic, b"2", 2)
    one.send(ack("PUBREC", one.receive(settle=False).packet_id, 0x80))
    assert one.receive().payload == b"2"


@v5("3.3.4-10")
def test_qos_0_does_not_wait_for_the_window(client, topic):
    """A broker may hold QoS 0 back too; if it does, nothing of it is lost or out of order once the window opens."""
    one, publisher = client(props={"receive_maximum": 1}), client()
    one.subscribe((f"{topic}/1", 1), (f"{topic}/0", 0))
    publisher.publish(f"{topic}/1", b"held", 1)
    publisher.publish(f"{topic}/0", b"free", 0)
    first = one.receive(settle=False)
    assert first.payload == b"held"
    one.send(ack("PUBACK", first.packet_id))
    assert one.receive().payload == b"free"


@v5("3.3.4-9", "4.4.0-1", "4.9.0-1")
@differs("mosquitto", "sends all again at once, whatever the window is now")
def test_receive_maximum_counts_what_is_sent_again(client, topic, name):
    kept = {"client_id": name, "clean": False}
    one, publisher = client(**kept, props={"session_expiry": 60, "receive_maximum": 10}), client()
    one.subscribe((topic, 1))
    for at in range(6):
        publisher.publish(topic, b"%d" % at, 1)
    for _ in range(6):
        one.receive(settle=False)
    one.drop()
    one = client(**kept, props={"session_expiry": 60, "receive_maximum": 2})
    came = [one.receive(settle=False) for _ in range(2)]
    assert one.settled() == []
    assert [packet.payload for packet in came] == [b"0", b"1"]
    for packet in came:
        one.send(ack("PUBACK", packet.packet_id))
    assert one.payloads(4) == [b"2", b"3", b"4", b"5"]


@v5("3.3.4-7", "4.9.0-1")
def test_receive_maximum_of_the_broker(client, topic):
    """One more at QoS 2 than the broker allows at once ends the connection with 0x93."""
    one = client()
    allowed = one.limit("receive_maximum", 65535)
    if allowed > 5000:
        pytest.skip("a window that wide is not worth filling")
    for packet_id in range(1, allowed + 2):
        one.send(publish(topic, b"", 2, packet_id))
    one.inbox.clear()
    while (packet := one.read_or_closed()) is not None:
        if packet.kind == "DISCONNECT":
            assert packet.reason == 0x93
            return
        assert packet.kind == "PUBREC", packet


@v5("3.3.4-7", "3.3.4-8")
def test_a_full_window_of_the_broker_serves_on(client, topic):
    one = client()
    allowed = min(one.limit("receive_maximum", 65535), 100)
    for packet_id in range(1, allowed + 1):
        one.send(publish(topic, b"", 2, packet_id))
    for packet_id in range(1, allowed + 1):
        one.expect("PUBREC", packet_id)
    one.publish(topic, b"qos 0 is not counted")
    one.subscribe(topic)
    for packet_id in range(1, allowed + 1):
        one.send(ack("PUBREL", packet_id))
        one.expect("PUBCOMP", packet_id)
    assert one.publish(topic, b"x", 2).reason in (0, 0x10)


@pytest.mark.parametrize("qos", (0, 1, 2))
@v5("3.1.2-24", "3.1.2-25")
def test_larger_than_the_client_takes(client, topic, qos):
    """Not sent, and settled as if it had been; what is not larger comes, and other subscribers get all."""
    small, large, publisher = client(props={"maximum_packet_size": 100}), client(), client()
    for one in (small, large):
        one.subscribe((topic, 2))
    publisher.publish(topic, b"before", qos)
    publisher.publish(topic, b"x" * 200, qos)
    publisher.publish(topic, b"after", qos)
    assert small.payloads(2) == [b"before", b"after"]
    assert large.payloads(3) == [b"before", b"x" * 200, b"after"]
    assert small.settled() == []


@v5("3.1.2-24", "3.1.2-25")
@pytest.mark.parametrize("over", (0, pytest.param(1, marks=differs("mosquitto", "counts a packet shorter than it is"))))
def test_the_last_byte_of_the_packet_size_counts(client, topic, over):
    small, publisher = client(props={"maximum_packet_size": 60}), client()
    small.subscribe((topic, 1))
    payload = b"x" * (60 - len(publish(topic, b"", 1, 1)) + over)
    publisher.publish(topic, payload, 1)
    publisher.publish(topic, b"next", 1)
    wanted = [b"next"] if over else [payload, b"next"]
    assert small.payloads(len(wanted)) == wanted


@v5("3.1.2-25", "3.1.2-24")
def test_larger_than_the_client_takes_while_it_was_away(client, topic, name):
    kept = {"client_id": name, "clean": False}
    one = client(**kept, props={"session_expiry": 60})
    one.subscribe((topic, 1))
    one.disconnect()
    publisher = client()
    publisher.publish(topic, b"x" * 200, 1)
    publisher.publish(topic, b"small", 1)
    one = client(**kept, props={"session_expiry": 60, "maximum_packet_size": 100})
    assert one.receive().payload == b"small"
    assert one.settled() == []
    one.disconnect()
    one = client(**kept, props={"session_expiry": 60})
    assert one.settled() == [], "what was too large is settled, and does not come back"


@v5("3.1.2-24", "3.3.1-9")
def test_retained_that_is_larger_than_the_client_takes(client, topic):
    client().publish(topic, b"x" * 200, 1, retain=True)
    one = client(props={"maximum_packet_size": 100})
    one.subscribe((topic, 1))
    assert one.settled() == []


@v5("3.1.2-29", "3.4.2-2", "3.4.2-3", "3.5.2-2", "3.5.2-3", "3.7.2-2", "3.7.2-3", "3.9.2-1", "3.9.2-2", "3.11.2-1", "3.11.2-2")
@pytest.mark.parametrize("props", ({"request_problem": 0}, {"maximum_packet_size": 40}))
def test_no_reasons_in_words_where_they_are_not_wanted(client, topic, props):
    """Answers that could hold a reason string or user properties: none where they were declined, none that would be too large."""
    one = client(props=props)
    topic = topic[:4]
    one.subscribe(topic)
    for packet_id, build in enumerate((one.ask_subscribe, one.unsubscribe), 100):
        answer = build(f"$share/{topic}" if packet_id == 100 else "none")
        assert not {"reason_string", "user"} & set(answer.props) or "maximum_packet_size" in props
    for qos, place in ((1, topic), (2, f"{topic}/none"), (1, f"$SYS/{topic}")):
        answer = one.publish(place, b"x", qos)
        assert not {"reason_string", "user"} & set(answer.props) or "maximum_packet_size" in props
    assert one.longest <= 40


@v5("3.14.2-3", "3.14.2-4", "3.2.2-19", "3.2.2-20")
def test_the_end_is_not_larger_than_allowed(client):
    one = client(props={"maximum_packet_size": 20}, client_id="x")
    assert len(one.connack.raw) <= 20
    one.send(publish("a/#"))
    last = one.expect_close(0x81, 0x82, 0x90)
    assert last is None or len(last.raw) <= 20


@v5("4.5.0-1", "4.2.0-1")
@v3("4.5.0-1")
def test_a_client_that_does_not_read_holds_up_nobody(client, broker, level, topic):
    """8 MiB for two subscribers, one of which reads nothing: the other gets all of it."""
    stalled, reading, publisher = client(level), client(level), client(level)
    for one in (stalled, reading):
        one.subscribe((topic, 0))
    for at in range(128):
        publisher.publish(topic, at.to_bytes(4, "big") + b"x" * 65532)
        assert reading.receive().payload[:4] == at.to_bytes(4, "big")
    assert publisher.settled() == []


@v5("4.2.0-1", "3.1.4-1")
@v3("3.1.4-1")
def test_silent_and_half_open_connections_harm_nobody(raw, client, level, topic):
    held = [raw(level) for _ in range(50)]
    for at, link in enumerate(held):
        link.send(packets.connect("x" * 20, level)[: at % 20])
    one = client(level)
    one.subscribe((topic, 1))
    one.publish(topic, b"x", 1)
    assert one.receive().payload == b"x"


@v5("3.1.4-1")
@v3("3.1.4-1")
def test_huge_lengths_before_connect_reserve_nothing(raw, broker, level):
    """256 MiB announced as a first packet: refused at once, or never waited for in memory; the next client is served."""
    for first in (0x10, 0x30):
        link = raw(level)
        link.send(bytes([first, 0xFF, 0xFF, 0xFF, 0x7F]) + b"\0\4MQTT")
    one = Client(broker.address, level)
    assert one.settled() == []
    one.disconnect()
