"""WebSocket by hand (RFC 6455): the opening, frames of any kind, and a stream of what the binary frames carry for `Link`."""

import base64
import hashlib
import os
import socket

GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
CONTINUED, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


class Refused(AssertionError):
    """The server did not switch to WebSocket."""


class Socket:
    """In place of a TCP socket: `sendall` sends one binary frame, `recv` gives what binary frames bring."""

    def __init__(self, address, path="/mqtt", protocols="mqtt", seconds=10):
        self.tcp = socket.create_connection(address, seconds)
        self.tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.bytes = b""
        self.pongs = []
        self.closed_with = None
        key = base64.b64encode(os.urandom(16)).decode()
        offered = f"Sec-WebSocket-Protocol: {protocols}\r\n" if protocols else ""
        self.tcp.sendall(
            f"GET {path} HTTP/1.1\r\nHost: {address[0]}:{address[1]}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n{offered}\r\n".encode()
        )
        while b"\r\n\r\n" not in self.bytes:
            data = self.tcp.recv(4096)
            if not data:
                raise Refused(f"closed behind {self.bytes!r}")
            self.bytes += data
        head, self.bytes = self.bytes.split(b"\r\n\r\n", 1)
        self.status, *lines = head.decode().split("\r\n")
        self.headers = {name.strip().lower(): value.strip() for name, value in (line.split(":", 1) for line in lines)}
        if self.status.split()[1] != "101":
            raise Refused(self.status)
        assert self.headers["sec-websocket-accept"] == base64.b64encode(hashlib.sha1((key + GUID).encode()).digest()).decode()

    def settimeout(self, seconds):
        self.tcp.settimeout(seconds)

    def close(self):
        self.tcp.close()

    def fileno(self):
        return self.tcp.fileno()

    def frame(self, kind, payload, final=True, masked=True):
        """Sends one frame; a client's are masked, and a server refuses those that are not."""
        length = len(payload)
        head = bytes([(0x80 if final else 0) | kind])
        bit = 0x80 if masked else 0
        if length < 126:
            head += bytes([bit | length])
        elif length < 1 << 16:
            head += bytes([bit | 126]) + length.to_bytes(2, "big")
        else:
            head += bytes([bit | 127]) + length.to_bytes(8, "big")
        if not masked:
            self.tcp.sendall(head + payload)
            return
        mask = os.urandom(4)
        whole = int.from_bytes(payload, "big") ^ int.from_bytes((mask * (length // 4 + 1))[:length], "big")
        self.tcp.sendall(head + mask + whole.to_bytes(length, "big"))

    def sendall(self, data):
        self.frame(BINARY, data)

    def exactly(self, count):
        while len(self.bytes) < count:
            data = self.tcp.recv(1 << 16)
            if not data:
                return None
            self.bytes += data
        taken, self.bytes = self.bytes[:count], self.bytes[count:]
        return taken

    def recv(self, _size):
        """What the next data frame carries; b"" when the server has closed, by a frame or without."""
        while True:
            head = self.exactly(2)
            if head is None:
                return b""
            length = head[1] & 0x7F
            assert not head[1] & 0x80, "a server's frame is not masked"
            assert not head[0] & 0x70, "reserved bits of a frame"
            if length > 125:
                length = int.from_bytes(self.exactly(2 if length == 126 else 8), "big")
            payload = self.exactly(length) if length else b""
            if payload is None:
                return b""
            kind = head[0] & 0x0F
            if kind == PONG:
                self.pongs.append(payload)
            elif kind == PING:
                self.frame(PONG, payload)
            elif kind == CLOSE:
                self.closed_with = int.from_bytes(payload[:2], "big")
                return b""
            else:
                assert kind in (BINARY, CONTINUED), f"a frame of kind {kind} with MQTT in it"
                if payload:
                    return payload
