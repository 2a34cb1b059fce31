"""A node whose memory for requests is taken: what clients sent waits, is answered later, and comes in its order."""

import os
import signal
import struct

import pytest
from wire import API_VERSIONS, Wire

from mqtt import packets
from mqtt.link import Client, let_pass
from mqtt.packets import Will, ack, publish

MEMORY = 128 << 20
# Of which a sixteenth is for requests.
REQUESTS = MEMORY // 16
LARGE = b"x" * 4096


@pytest.fixture
def node(own_broker):
    return own_broker(settings={"memory.bytes_max": MEMORY})


class Occupied:
    """A Kafka client that announces a request of nearly all the memory there is, and does not send it."""

    def __init__(self, node):
        self.wire = Wire(node.bootstrap)
        self.wire.send(API_VERSIONS, 0, b"")
        self.wire.socket.sendall(struct.pack(">i", REQUESTS - 1000))
        self.wire.receive()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.wire.socket.close()


@pytest.mark.parametrize("level", (4, 5))
def test_exchanges_of_qos_2_in_one_write(node, level):
    """As every client sends them that does not wait: PUBREL of one between PUBLISH of others."""
    one = Client(node.mqtt_address, level)
    with Occupied(node):
        for number in range(1, 9):
            one.send(publish("a", LARGE, 2, number, level=level), ack("PUBREL", 100 + number))
        # Behind all of them: the node has read what it is going to read.
        assert Client(node.mqtt_address).settled() == []
    for number in range(1, 9):
        one.expect("PUBREC", number)
        one.expect("PUBCOMP", 100 + number)
    assert one.subscribe("b").reasons == [2]


@pytest.mark.parametrize("goodbye", (True, False))
def test_qos_0_between_pings(node, goodbye):
    reader, one = Client(node.mqtt_address), Client(node.mqtt_address)
    reader.subscribe(("a", 0))
    with Occupied(node):
        sent = [publish("a", b"%d" % number + LARGE) for number in range(5)]
        one.send(packets.PINGREQ.join(sent), packets.disconnect() if goodbye else b"")
        assert reader.settled() == []
    assert [packet.payload[:1] for packet in reader.receive_many(5)] == [b"%d" % number for number in range(5)]


@pytest.mark.parametrize("level", (4, 5))
def test_a_client_that_takes_nothing_is_silent(node, level):
    """It is sent more than all buffers hold and reads nothing: to its keep-alive it is gone, and its will is published."""
    watcher, writer = Client(node.mqtt_address), Client(node.mqtt_address)
    watcher.subscribe("will")
    gone = Client(node.mqtt_address, level, keep_alive=2, will=Will("will", b"gone"))
    gone.subscribe(("a", 0))
    for _ in range(800):
        writer.send(publish("a", LARGE * 16))
    writer.settled()
    assert watcher.receive(seconds=20).payload == b"gone"


@pytest.mark.parametrize("level", (4, 5))
def test_a_client_that_reads_slowly_is_not_silent(node, level):
    """The node does not read it while it is behind, so that its pings are not seen; what it takes shows that it is there."""
    writer = Client(node.mqtt_address)
    slow = Client(node.mqtt_address, level, keep_alive=1)
    slow.subscribe(("a", 0))
    for _ in range(800):
        writer.send(publish("a", LARGE * 16))
    slow.send(publish("said", b"x", 1, 7, level=level))
    slow.expect("PUBACK", 7, seconds=60)


def test_a_node_that_stood_still_blames_nobody(node):
    """What a client sent meanwhile is looked at before it is called silent."""
    clients = [Client(node.mqtt_address, keep_alive=2) for _ in range(10)]
    os.kill(node.pid, signal.SIGSTOP)
    try:
        for one in clients:
            one.send(packets.PINGREQ)
        let_pass(4)
    finally:
        os.kill(node.pid, signal.SIGCONT)
    for one in clients:
        one.expect("PINGRESP")
