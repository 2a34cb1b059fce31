"""The Kafka wire by hand, for what no client would send: raw frames, raw batches, raw answers.

Written from the protocol's own tables; only old, fixed-layout versions are used, so that this stays small.
"""

import gzip
import socket
import struct
import time

import cramjam
import zstandard

PRODUCE, FETCH, LIST_OFFSETS, METADATA, FIND_COORDINATOR, API_VERSIONS, INIT_PRODUCER_ID = 0, 1, 2, 3, 10, 18, 22
CODEC_BITS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}


class Closed(Exception):
    """The server closed the connection."""


class Wire:
    """One connection that speaks frames."""

    def __init__(self, bootstrap, timeout=10):
        host, port = bootstrap.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.correlation = 0

    @property
    def local_port(self):
        return self.socket.getsockname()[1]

    def send_frame(self, payload):
        self.socket.sendall(struct.pack(">i", len(payload)) + payload)

    def send(self, key, version, body, client="wire"):
        """Sends with request header version 1; returns the correlation id."""
        self.correlation += 1
        self.send_frame(struct.pack(">hhi", key, version, self.correlation) + text(client) + body)
        return self.correlation

    def receive(self):
        """One frame as (correlation id, body); `Closed` at the end of the stream."""
        head = self.exactly(4)
        body = self.exactly(struct.unpack(">i", head)[0])
        return struct.unpack(">i", body[:4])[0], body[4:]

    def exactly(self, count):
        parts = b""
        while len(parts) < count:
            try:
                part = self.socket.recv(count - len(parts))
            except ConnectionError:
                part = b""
            if not part:
                raise Closed
            parts += part
        return parts

    def ask(self, key, version, body):
        correlation = self.send(key, version, body)
        answered, answer = self.receive()
        assert answered == correlation, (answered, correlation)
        return answer

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def produce(self, topic, batch, partition=0, acks=-1, version=7):
        """Returns (error code, base offset, log append time)."""
        return produce_answer(self.ask(PRODUCE, version, produce_body(topic, batch, partition, acks)))

    def fetch(self, topic, partition=0, offset=0, bytes_max=1 << 24, wait_ms=500, bytes_min=1):
        """Returns (error code, high watermark, raw record bytes)."""
        body = struct.pack(">iiiib", -1, wait_ms, bytes_min, bytes_max, 0)
        body += struct.pack(">i", 1) + text(topic) + struct.pack(">iiqi", 1, partition, offset, bytes_max)
        answer = self.ask(FETCH, 4, body)
        at = 4 + 4 + 2 + len(topic) + 4
        _partition, error, high, _stable, aborted = struct.unpack_from(">ihqqi", answer, at)
        at += 26 + max(aborted, 0) * 16
        size = struct.unpack_from(">i", answer, at)[0]
        return error, high, answer[at + 4 : at + 4 + max(size, 0)]

    def api_versions(self):
        """{api key: (min, max)}"""
        answer = self.ask(API_VERSIONS, 0, b"")
        error, count = struct.unpack_from(">hi", answer)
        assert error == 0
        return {key: (low, high) for key, low, high in struct.iter_unpack(">hhh", answer[6 : 6 + 6 * count])}

    def init_producer_id(self):
        """(producer id, epoch) for an idempotent producer."""
        answer = self.ask(INIT_PRODUCER_ID, 0, struct.pack(">hi", -1, 60000))
        _throttle, error, producer, epoch = struct.unpack(">ihqh", answer)
        assert error == 0, error
        return producer, epoch


def text(value):
    return struct.pack(">h", -1) if value is None else struct.pack(">h", len(value.encode())) + value.encode()


def produce_body(topic, batch, partition=0, acks=-1):
    head = text(None) + struct.pack(">hi", acks, 10000)
    return head + struct.pack(">i", 1) + text(topic) + struct.pack(">iii", 1, partition, len(batch)) + batch


def produce_answer(answer):
    """Versions 5 to 7: topics, partitions, {index, error, base offset, log append time, log start}, throttle time."""
    name_length = struct.unpack_from(">h", answer, 4)[0]
    _index, error, base, append_time, _start = struct.unpack_from(">ihqqq", answer, 4 + 2 + name_length + 4)
    return error, base, append_time


def varint(value):
    value = (value << 1) ^ (value >> 63)
    out = bytearray()
    while value > 0x7F:
        out.append((value & 0x7F) | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def record(offset_delta, value, key=None, timestamp_delta=0, headers=()):
    def sized(part):
        return varint(-1) if part is None else varint(len(part)) + part

    body = b"\x00" + varint(timestamp_delta) + varint(offset_delta) + sized(key) + sized(value) + varint(len(headers))
    for name, header_value in headers:
        body += varint(len(name)) + name + sized(header_value)
    return varint(len(body)) + body


def xerial_snappy(raw):
    """Snappy in the block framing which the Java client writes."""
    out = b"\x82SNAPPY\x00" + struct.pack(">ii", 1, 1)
    for at in range(0, len(raw), 32 << 10):
        block = bytes(cramjam.snappy.compress_raw(raw[at : at + (32 << 10)]))
        out += struct.pack(">i", len(block)) + block
    return out


def lz4_frame(raw):
    import lz4.frame

    return lz4.frame.compress(raw)


COMPRESS = {
    "none": bytes,
    "gzip": lambda raw: gzip.compress(raw, mtime=0),
    "snappy": xerial_snappy,
    "lz4": lz4_frame,
    "zstd": zstandard.ZstdCompressor().compress,
}


def batch(values, codec="none", producer=(-1, -1, -1), timestamp=None, magic=2, attributes=0, body=None, count=None):
    """A record batch of format 2; `producer` is (id, epoch, first sequence). `body` and `count` override what is right."""
    timestamp = int(time.time() * 1000) if timestamp is None else timestamp
    raw = b"".join(record(index, value) for index, value in enumerate(values))
    packed = COMPRESS[codec](raw) if body is None else body
    count = len(values) if count is None else count
    tail = struct.pack(">hiqqqhii", attributes | CODEC_BITS[codec], count - 1, timestamp, timestamp, *producer, count) + packed
    return struct.pack(">qiibI", 0, len(tail) + 9, 0, magic, crc32c(tail)) + tail


def split_batches(raw):
    """The whole batches of a fetch answer, as bytes."""
    batches = []
    while len(raw) >= 61:
        size = 12 + struct.unpack_from(">i", raw, 8)[0]
        if len(raw) < size:
            break
        batches.append(raw[:size])
        raw = raw[size:]
    return batches


def _crc32c_table():
    table = []
    for index in range(256):
        for _ in range(8):
            index = (index >> 1) ^ (0x82F63B78 if index & 1 else 0)
        table.append(index)
    return table


CRC32C_TABLE = _crc32c_table()


def crc32c(data):
    """Castagnoli's polynomial, reflected (RFC 3720 appendix B.4)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ CRC32C_TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF
