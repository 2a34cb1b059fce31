"""A connection to a broker which a test drives packet by packet, and a client that goes through the usual flows on it.

Every wait has a deadline. That nothing more comes is never concluded from silence: `settled` sends a PINGREQ behind what was sent, and
`Client.nothing_but` lets another client publish a marker behind it.
"""

import itertools
import select
import socket
import time
import uuid

from mqtt import packets
from mqtt.packets import Broken

SECONDS = 10
# How long a server that should close may take before it is asked whether it still serves; no test fails for this time alone.
PATIENCE = 0.3


class Late(AssertionError):
    """Nothing came by the deadline."""


class Closed(AssertionError):
    """The server closed where the test expected a packet."""


class Link:
    """One TCP connection, or anything with `sendall` and `recv` in its place."""

    def __init__(self, address, level=5, sock=None):
        self.level = level
        self.socket = sock or socket.create_connection(address, SECONDS)
        if sock is None:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.bytes = b""
        self.inbox = []
        self.seen = []
        self.longest = 0  # bytes of the longest packet that came
        self.aliases = {}

    def send(self, *what):
        """What a server that has closed already makes of it is seen when reading."""
        try:
            self.socket.settimeout(SECONDS)
            self.socket.sendall(b"".join(what))
        except (BrokenPipeError, ConnectionResetError):
            pass

    def fill(self, deadline, what):
        """More bytes, or Closed; fails at the deadline."""
        left = deadline - time.monotonic()
        if left <= 0:
            raise Late(f"no {what} in time; had {self.seen[-6:]}")
        self.socket.settimeout(left)
        try:
            data = self.socket.recv(1 << 16)
        except TimeoutError:
            raise Late(f"no {what} in time; had {self.seen[-6:]}") from None
        except ConnectionResetError:
            data = b""
        if not data:
            raise Closed(f"closed by the server, {what} expected; had {self.seen[-6:]}")
        self.bytes += data

    def parse(self):
        """The next whole packet among the bytes that are here, or None."""
        if len(self.bytes) < 2:
            return None
        length, shift, at = 0, 0, 1
        while True:
            if at >= len(self.bytes):
                return None
            digit = self.bytes[at]
            length |= (digit & 0x7F) << shift
            at, shift = at + 1, shift + 7
            if not digit & 0x80:
                break
            if shift > 21:
                raise Broken(f"remaining length of more than four bytes: {self.bytes[:6]!r}")
        if len(self.bytes) < at + length:
            return None
        body, first = self.bytes[at : at + length], self.bytes[0]
        self.bytes = self.bytes[at + length :]
        packet = packets.decode(first, body, self.level)
        self.longest = max(self.longest, len(packet.raw))
        self.seen.append((packet.kind, packet.packet_id, packet.topic, hex(packet.reason)))
        return packet

    def read(self, seconds=SECONDS, what="packet"):
        """The next packet off the wire."""
        deadline = time.monotonic() + seconds
        while (packet := self.parse()) is None:
            self.fill(deadline, what)
        return packet

    def next(self, kind=None, seconds=SECONDS):
        """The next packet, which must be of this kind."""
        packet = self.inbox.pop(0) if self.inbox else self.read(seconds, kind or "packet")
        assert kind in (None, packet.kind), f"{kind} expected, {packet} came"
        return packet

    def expect(self, kind, packet_id=None, seconds=SECONDS):
        """The next packet of this kind (and identifier); packets before it stay for later."""
        deadline = time.monotonic() + seconds
        for at, packet in enumerate(self.inbox):
            if packet.kind == kind and packet_id in (None, packet.packet_id):
                return self.inbox.pop(at)
        while True:
            packet = self.read(deadline - time.monotonic(), kind)
            if packet.kind == kind and packet_id in (None, packet.packet_id):
                return packet
            self.inbox.append(packet)

    def settled(self):
        """What came until the answer to a PINGREQ sent now, in order."""
        self.send(packets.PINGREQ)
        self.expect("PINGRESP")
        came, self.inbox = self.inbox, []
        return came

    def read_or_closed(self, seconds=None):
        """The next packet, None when the server closes. Without a time of its own a server that stays open is asked for a PINGRESP,
        which then comes at once and shows that it serves on."""
        try:
            if seconds:
                return self.read(seconds, "close")
            try:
                return self.read(PATIENCE, "close")
            except Late:
                self.send(packets.PINGREQ)
                return self.read(what="close")
        except Closed:
            return None

    def expect_close(self, *reasons, seconds=None):
        """The server closes; before that, at level 5, it may say why, with one of these reasons. Returns its DISCONNECT or None."""
        last = None
        while (packet := self.read_or_closed(seconds)) is not None:
            assert last is None, f"{packet} behind {last}"
            assert packet.kind != "PINGRESP", f"serves on where it should have closed; had {self.seen[-6:]}"
            if packet.kind == "DISCONNECT":
                last = packet
                assert not reasons or packet.reason in reasons, f"reason {packet.reason:#x}, {[hex(reason) for reason in reasons]} expected"
        return last

    def refused(self, *reasons):
        """A CONNECT is refused: a CONNACK that says why or none, and the connection closed. Returns the CONNACK or None."""
        packet = self.read_or_closed()
        if packet is None:
            return None
        assert packet.kind == "CONNACK" and packet.reason != 0, f"{packet} where a refusal was expected"
        assert not packet.session_present, f"{packet} refuses and says that a session is present"
        assert not reasons or packet.reason in reasons, f"reason {packet.reason:#x}, {[hex(reason) for reason in reasons]} expected"
        self.gone()
        return packet

    def gone(self):
        """The server closes, and sends nothing more."""
        packet = self.read_or_closed()
        assert packet is None, f"{packet} where the connection should have been closed"

    def readable(self):
        """Whether something is here already."""
        return bool(self.inbox or self.bytes or select.select([self.socket], [], [], 0)[0])

    def drop(self):
        """The network fails: closed with a reset, without a DISCONNECT."""
        if isinstance(self.socket, socket.socket) and self.socket.fileno() >= 0:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.socket.close()


class Client(Link):
    """A client that was accepted. Packets which a test does not ask for stay in the inbox."""

    def __init__(self, address, level=5, client_id=None, accept=True, sock=None, **options):
        super().__init__(address, level, sock)
        self.client_id = f"c{uuid.uuid4().hex[:16]}" if client_id is None else client_id
        self.ids = itertools.cycle(range(1, 65536))
        self.send(packets.connect(self.client_id, level, **options))
        self.connack = self.next("CONNACK") if accept else None
        if accept:
            assert self.connack.reason == 0, f"refused: {self.connack}"

    def limit(self, name, otherwise):
        return self.connack.props.get(name, otherwise)

    def subscribe(self, *filters, props=None):
        """Filters, or pairs of one and its options byte (2 when not given); returns the SUBACK, whose reasons are below 0x80."""
        suback = self.ask_subscribe(*filters, props=props)
        assert all(reason < 0x80 for reason in suback.reasons), suback
        return suback

    def ask_subscribe(self, *filters, props=None):
        pairs = [one if isinstance(one, tuple) else (one, 2) for one in filters]
        packet_id = next(self.ids)
        self.send(packets.subscribe(packet_id, pairs, self.level, props))
        suback = self.expect("SUBACK", packet_id)
        assert len(suback.reasons) == len(pairs), suback
        return suback

    def unsubscribe(self, *filters):
        packet_id = next(self.ids)
        self.send(packets.unsubscribe(packet_id, filters, self.level))
        return self.expect("UNSUBACK", packet_id)

    def publish(self, topic, payload=b"x", qos=0, retain=False, props=None):
        """The whole flow; returns the PUBACK, the PUBREC that refused, the PUBCOMP, or None at QoS 0."""
        packet_id = next(self.ids) if qos else None
        self.send(packets.publish(topic, payload, qos, packet_id, retain, level=self.level, props=props))
        if qos == 0:
            return None
        answer = self.expect("PUBACK" if qos == 1 else "PUBREC", packet_id)
        if qos == 1 or answer.reason >= 0x80:
            return answer
        self.send(packets.ack("PUBREL", packet_id))
        return self.expect("PUBCOMP", packet_id)

    def receive(self, seconds=SECONDS, settle=True):
        """The next PUBLISH, acknowledged through its whole flow unless told not to."""
        packet = self.expect("PUBLISH", seconds=seconds)
        alias = packet.props.get("topic_alias")
        if alias and packet.topic:
            self.aliases[alias] = packet.topic
        elif alias:
            packet.topic = self.aliases[alias]
        if settle and packet.qos == 1:
            self.send(packets.ack("PUBACK", packet.packet_id))
        if settle and packet.qos == 2:
            self.send(packets.ack("PUBREC", packet.packet_id))
            self.expect("PUBREL", packet.packet_id)
            self.send(packets.ack("PUBCOMP", packet.packet_id))
        return packet

    def retained_so_far(self):
        """What was retained before this, at QoS 0 too, is in its place: a message retained with an answer is behind it."""
        fence = f"fence/{uuid.uuid4().hex}"
        self.publish(fence, b"fence", 1, retain=True)
        self.publish(fence, b"", 1, retain=True)

    def receive_many(self, count):
        return [self.receive() for _ in range(count)]

    def payloads(self, count):
        return [self.receive().payload for _ in range(count)]

    def nothing_but(self, publisher, *payloads):
        """Exactly these payloads come (in this order) of all that was published so far: a marker behind it comes next."""
        marker = f"marker/{uuid.uuid4().hex}"
        self.subscribe((marker, 1))
        publisher.publish(marker, b"marker", qos=1)
        came = []
        while (packet := self.receive()).topic != marker:
            came.append(packet.payload)
        self.unsubscribe(marker)
        assert came == list(payloads), f"{came} came, {list(payloads)} expected"

    def disconnect(self, reason=None, props=None):
        """Says goodbye and waits until the server has closed, so that what follows finds it done."""
        self.send(packets.disconnect(reason, props))
        try:
            while True:
                self.read(what="close")
        except Closed:
            self.socket.close()


def let_pass(seconds):
    """Time itself, where it is what the test is about: an expiry, a delay, a keep-alive. Never used to wait for something to be done."""
    time.sleep(seconds)
