"""Clients that keep to the standard whatever happens to their connection: a publisher and a subscriber, each a thread of its own.

Both remember what the standard tells a client to remember of a session: unacknowledged packets, which it sends again after a
reconnect in their order, and the identifiers of QoS 2 messages that it was given and that were not released. What the server does
that the standard does not allow is noted in `faults`.
"""

import select
import threading
import time

from mqtt import packets
from mqtt.link import SECONDS, Closed, Link
from mqtt.verdict import Stream, payload

WINDOW = 12  # messages that a publisher sends before any is acknowledged
IDS = range(1, 2 * WINDOW + 4)  # few, so that they come round quickly
RECONNECT_SECONDS = 60
PERIOD = 0.012  # seconds between two new messages of a publisher


class Lost(Exception):
    """This client itself drops its connection."""


class Faithful(threading.Thread):
    """A client with a session. `drops` is the chance, at each step, that it loses its connection."""

    def __init__(self, address, name, level, chance, drops=0.0, persistent=True):
        super().__init__(name=name, daemon=True)
        self.address, self.level, self.chance, self.drops, self.persistent = address, level, chance, drops, persistent
        self.link = None
        self.known = False  # the server has said that it keeps our session
        self.faults = []
        self.connections = 0
        self.failure = None

    def fault(self, text):
        self.faults.append(f"{self.name}: {text}")

    def options(self):
        if not self.persistent:
            return {"clean": True}
        return {"clean": False, "props": {"session_expiry": 3600, **self.properties()} if self.level == 5 else None}

    def properties(self):
        return {}

    def connect(self):
        """Connects, however often that takes; then the session is as it was, or `session_lost` is told."""
        deadline = time.monotonic() + RECONNECT_SECONDS
        while True:
            try:
                self.link = Link(self.address, self.level)
                self.link.send(packets.connect(self.name, self.level, **self.options()))
                connack = self.link.next("CONNACK")
                break
            except (OSError, Closed):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
        assert connack.reason == 0, connack
        self.connections += 1
        if self.persistent and self.known and not connack.session_present:
            self.fault(f"session lost at connection {self.connections}")
        if not connack.session_present:
            self.session_lost()
        self.known = self.persistent

    def session_lost(self):
        pass

    def step(self, seconds):
        """The next packet, or None if none comes within this time."""
        if self.chance.random() < self.drops:
            raise Lost
        packet = self.link.parse()
        while packet is None:
            if not select.select([self.link.socket], [], [], seconds)[0]:
                return None
            self.link.fill(time.monotonic() + SECONDS, "packet")
            packet = self.link.parse()
        return packet

    def run(self):
        try:
            while not self.served():
                try:
                    self.connect()
                    self.converse()
                except (Lost, Closed, OSError):
                    self.link.drop()
        except BaseException as failure:  # told to the test's own thread
            self.failure = failure
            raise

    def served(self):
        """Whether there is nothing more to do."""
        raise NotImplementedError

    def converse(self):
        """Goes on until all is done or the connection ends."""
        raise NotImplementedError


class Publisher(Faithful):
    """Publishes numbered messages to `topic` with the QoS in it, until `enough` is set and all is acknowledged."""

    def __init__(self, address, name, level, chance, topic, qoses, **options):
        super().__init__(address, name, level, chance, **options)
        self.topic = topic
        self.streams = [Stream(name, qos) for qos in qoses]
        self.pending = {}  # by packet id, in the order sent: stream, number, "PUBLISH" or "PUBREL"
        self.again = []  # stream, number: to be sent as if new, the session being gone
        self.enough = threading.Event()
        self.last_id = 0
        self.ended = False

    def served(self):
        return self.ended

    def session_lost(self):
        self.again = [(stream, number) for stream, number, state in self.pending.values() if state == "PUBLISH"] + self.again
        self.pending.clear()

    def next_id(self):
        """A free one, the one that was not used for longest."""
        while True:
            self.last_id = IDS[self.last_id % len(IDS)]
            if self.last_id not in self.pending:
                return self.last_id

    def send(self, packet_id, stream, number, dup=False):
        topic, data = f"{self.topic}/{stream.qos}", payload(*stream.key, number)
        self.link.send(packets.publish(topic, data, stream.qos, packet_id, dup=dup, level=self.level))

    def converse(self):
        for packet_id, (stream, number, state) in self.pending.items():
            if state == "PUBLISH":
                self.send(packet_id, stream, number, dup=True)
            else:
                self.link.send(packets.ack("PUBREL", packet_id))
        answered = due = time.monotonic()
        while self.pending or self.again or not self.enough.is_set():
            room = len(self.pending) < WINDOW and (self.again or not self.enough.is_set())
            if room and time.monotonic() >= due:
                self.publish_next()
                due = time.monotonic() + PERIOD
            packet = self.step(max(0, due - time.monotonic()) if room else 0.2)
            if packet is not None:
                self.take(packet)
                answered = time.monotonic()
            elif self.pending and time.monotonic() - answered > SECONDS:
                self.fault(f"no answer within {SECONDS} s to {[(key, *value[1:]) for key, value in self.pending.items()]}")
                return
        self.link.send(packets.disconnect())
        self.link.socket.close()
        self.ended = True

    def publish_next(self):
        if self.again:
            stream, number = self.again.pop(0)
        else:
            stream = self.chance.choice(self.streams)
            number, stream.attempted = stream.attempted, stream.attempted + 1
        packet_id = self.next_id()
        self.pending[packet_id] = (stream, number, "PUBLISH")
        self.send(packet_id, stream, number)

    def take(self, packet):
        stream, number, state = self.pending.get(packet.packet_id, (None, None, None))
        if stream is None or packet.kind != {1: "PUBACK", 2: "PUBREC" if state == "PUBLISH" else "PUBCOMP"}[stream.qos]:
            self.fault(f"{packet} where {state} of {stream and stream.key} {number} was due")
        elif packet.kind == "PUBCOMP":
            del self.pending[packet.packet_id]
        elif packet.reason >= 0x80:
            self.fault(f"refused: {packet}")
            del self.pending[packet.packet_id]
        elif packet.kind == "PUBACK":
            stream.acked.add(number)
            del self.pending[packet.packet_id]
        else:
            stream.acked.add(number)
            self.pending[packet.packet_id] = (stream, number, "PUBREL")
            self.link.send(packets.ack("PUBREL", packet.packet_id))


class Subscriber(Faithful):
    """A persistent session with these filters: pairs of one and its QoS. `came` is what its application was given."""

    def __init__(self, address, name, level, chance, filters, patience=1, receive_maximum=None, **options):
        super().__init__(address, name, level, chance, **options)
        self.filters, self.patience, self.receive_maximum = filters, patience, receive_maximum
        self.subscribed = threading.Event()
        self.enough = threading.Event()
        self.came = []
        self.held = {}  # QoS 2 messages by packet id, not yet released
        self.unanswered = []  # acknowledgements that are held back, at most `patience` of them
        self.here = {}  # by packet id, what came on this connection and was not acknowledged
        self.ended = False

    def served(self):
        return self.ended

    def properties(self):
        return {"receive_maximum": self.receive_maximum} if self.receive_maximum else {}

    def session_lost(self):
        self.held.clear()

    def converse(self):
        self.unanswered, self.here = [], {}
        if not self.subscribed.is_set():
            self.link.send(packets.subscribe(1, self.filters, self.level))
            suback = self.link.expect("SUBACK", 1)
            assert suback.reasons == [qos for _, qos in self.filters], suback
            self.subscribed.set()
            for packet in self.link.inbox:
                self.take(packet)
        while not self.enough.is_set():
            packet = self.step(0.005)
            if packet is not None:
                self.take(packet)
            if packet is None or len(self.unanswered) >= self.patience:
                self.answer()
        self.finish()

    def finish(self):
        """Once more from a new connection: what is not settled comes again, and nothing else."""
        if not self.ended:
            self.answer()
            self.link.drop()
            self.connect()
            self.unanswered, self.here = [], {}
            for _ in range(3):  # a PUBREL, and what it made room for, comes behind what was sent here
                self.link.send(packets.PINGREQ)
                while (packet := self.link.next()).kind != "PINGRESP":
                    self.take(packet)
                    self.answer()
            self.ended = True
            self.link.socket.close()

    def answer(self):
        for packet_id, answer in self.unanswered:
            self.here.pop(packet_id, None)
            self.link.send(answer)
        self.unanswered = []

    def take(self, packet):
        packet_id = packet.packet_id
        if packet.kind == "PUBREL":
            # Unknown here where our PUBCOMP was lost.
            known = self.held.pop(packet_id, None) is not None
            self.link.send(packets.ack("PUBCOMP", packet_id, None if known or self.level < 5 else 0x92))
            return
        if packet.kind != "PUBLISH":
            return self.fault(f"unexpected {packet}")
        if packet.qos and packet_id in self.here:
            self.fault(f"id {packet_id} for {packet.payload!r} while {self.here[packet_id]!r} is not acknowledged")
        if packet.qos == 2:
            before = self.held.get(packet_id)
            if before is None:
                self.came.append(packet.payload)
                self.held[packet_id] = packet.payload
            elif before != packet.payload:
                self.fault(f"id {packet_id} for {packet.payload!r} while {before!r} is not released")
            elif not packet.dup:
                self.fault(f"{packet.payload!r} again with id {packet_id} and without DUP")
        else:
            self.came.append(packet.payload)
        if packet.qos:
            self.here[packet_id] = packet.payload
            self.unanswered.append((packet_id, packets.ack("PUBACK" if packet.qos == 1 else "PUBREC", packet_id)))
