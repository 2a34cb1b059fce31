"""Very many connections in one thread: each sends the same few packets, and what comes back is counted."""

import errno
import select
import socket
import time

from mqtt import packets

PARALLEL = 500  # connections that are being opened at once: more than a listener's backlog holds would be held up by lost SYNs


class Crowd:
    """Connections to one address. `answering`: QoS 1 messages are acknowledged as they come."""

    def __init__(self, address, level=5, receive_buffer=None):
        self.address, self.level, self.receive_buffer = address, level, receive_buffer
        self.epoll = select.epoll()
        self.members = {}  # by descriptor: Member
        self.counts = {}  # by kind of packet
        self.last = 0.0  # when the last packet came
        self.answering = False
        self.gone = 0  # closed by the server

    def open(self, count, hello, seconds=60, wanted="CONNACK"):
        """Connects `count` more and sends each `hello(number)`; returns the seconds until all had a packet of this kind (None: until all
        have sent)."""
        began, deadline = time.monotonic(), time.monotonic() + seconds
        first, had = len(self.members), self.counts.get(wanted, 0)
        started, self.sent, target = 0, 0, had + count
        while self.sent < count or (wanted and self.counts.get(wanted, 0) < target):
            assert time.monotonic() < deadline, f"{self.sent} of {count} connected, {self.counts} in {seconds} s, {self.gone} closed"
            done = self.counts.get(wanted, 0) - had if wanted else self.sent
            while started < count and started - done < PARALLEL:
                self.start(hello(first + started))
                started += 1
            self.turn(0.05)
        return time.monotonic() - began

    def start(self, hello):
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.receive_buffer)
        failed = sock.connect_ex(self.address)
        assert failed in (0, errno.EINPROGRESS), errno.errorcode.get(failed)
        self.members[sock.fileno()] = Member(sock, hello)
        self.epoll.register(sock.fileno(), select.EPOLLOUT)

    def turn(self, seconds):
        """One look at what is ready."""
        for descriptor, _ in self.epoll.poll(seconds):
            member = self.members[descriptor]
            if member.hello is not None:
                failed = member.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                assert failed == 0, errno.errorcode.get(failed)
                member.socket.send(member.hello)
                member.hello = None
                self.sent += 1
                self.epoll.modify(descriptor, select.EPOLLIN)
            else:
                self.read(member)

    def read(self, member):
        try:
            data = member.socket.recv(1 << 14)
        except BlockingIOError:
            return
        except ConnectionResetError:
            data = b""
        if not data:
            self.gone += 1
            self.epoll.unregister(member.socket.fileno())
            return
        self.last = time.monotonic()
        member.bytes += data
        while (packet := member.take()) is not None:
            kind = packets.NAMES[packet[0] >> 4]
            self.counts[kind] = self.counts.get(kind, 0) + 1
            if kind == "PUBLISH" and self.answering and packet[0] & 6:
                member.socket.send(packets.ack("PUBACK", packets.decode(packet[0], packet[1], self.level).packet_id))

    def ask(self, message, kind, seconds=60):
        """Everyone sends `message(number)`; waits until all had a packet of this kind."""
        target = self.counts.get(kind, 0) + len(self.members)
        for number, member in enumerate(self.members.values()):
            member.socket.send(message(number))
            if number % PARALLEL == 0:
                self.turn(0)
        self.wait(kind, target, seconds)

    def wait(self, kind, target, seconds=60):
        """Until so many packets of this kind have come since the beginning."""
        deadline = time.monotonic() + seconds
        while self.counts.get(kind, 0) < target:
            assert time.monotonic() < deadline, f"{self.counts} of {target} {kind} in {seconds} s, {self.gone} closed"
            self.turn(0.05)

    def leave(self):
        """Everyone sends DISCONNECT and waits until the server has closed."""
        target = len(self.members)
        for member in self.members.values():
            member.socket.send(packets.disconnect())
        deadline = time.monotonic() + 60
        while self.gone < target:
            assert time.monotonic() < deadline, f"{self.gone} of {target} closed"
            self.turn(0.05)
        self.close()

    def close(self):
        for member in self.members.values():
            member.socket.close()
        self.members = {}
        self.epoll.close()


class Member:
    """One connection, and what it says as soon as it is open."""

    def __init__(self, sock, hello):
        self.socket, self.hello = sock, hello
        self.bytes = b""

    def take(self):
        """The next whole packet: its first byte and its body."""
        length, shift = 0, 0
        for at in range(1, min(len(self.bytes), 5)):
            digit = self.bytes[at]
            length |= (digit & 0x7F) << shift
            shift += 7
            if not digit & 0x80:
                break
        else:
            return None
        end = at + 1 + length
        if len(self.bytes) < end:
            return None
        packet = self.bytes[0], self.bytes[at + 1 : end]
        self.bytes = self.bytes[end:]
        return packet
