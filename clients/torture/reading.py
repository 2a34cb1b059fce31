"""A consumer that reads from the beginning as fast as it is served, and one at the end beside it; each in a process of its own."""

import json
import os
import socket
import struct
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from wire import FETCH, PRODUCE, Wire, batch, produce_answer, produce_body, text  # noqa: E402

MIB = 1 << 20


def fetch_body(topic, partition, offset, bytes_max, wait_ms=500):
    """Fetch version 4 for one partition."""
    head = struct.pack(">iiiib", -1, wait_ms, 1, 64 * MIB, 0)
    return head + struct.pack(">i", 1) + text(topic) + struct.pack(">iiqi", 1, partition, offset, bytes_max)


class Frames:
    """Receives frames into one buffer, so that the client does not limit what is measured."""

    def __init__(self, wire):
        self.socket = wire.socket
        self.buffer = bytearray(64 * MIB)

    def receive(self):
        view = memoryview(self.buffer)
        self.into(view[:4])
        size = struct.unpack_from(">i", self.buffer)[0]
        self.into(view[:size])
        return view[:size]

    def into(self, view):
        while view:
            count = self.socket.recv_into(view)
            assert count, "the server closed the connection"
            view = view[count:]


def next_offset(frame, topic, offset):
    """What to ask for after this answer, and the bytes of records in it."""
    at = 4 + 4 + 4 + 2 + len(topic) + 4
    _partition, error, _high, _stable, aborted = struct.unpack_from(">ihqqi", frame, at)
    assert error == 0, error
    at += 26 + max(aborted, 0) * 16
    size = struct.unpack_from(">i", frame, at)[0]
    at, end = at + 4, at + 4 + size
    while at + 61 <= end:
        base, length = struct.unpack_from(">qi", frame, at)
        assert base + struct.unpack_from(">i", frame, at + 23)[0] >= offset, "an old batch"
        offset = base + struct.unpack_from(">i", frame, at + 23)[0] + 1
        at += 12 + length
    return offset, size


def catch_up(bootstrap, topic, partition, seconds, bytes_max):
    """Reads for so many seconds or to the end; gives bytes and seconds."""
    with Wire(bootstrap, timeout=30) as wire:
        wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * MIB)
        frames = Frames(wire)
        offset, got, slowest, began = 0, 0, 0.0, time.monotonic()
        while time.monotonic() - began < seconds:
            asked = time.monotonic()
            wire.send(FETCH, 4, fetch_body(topic, partition, offset, bytes_max))
            offset, size = next_offset(frames.receive(), topic, offset)
            slowest = max(slowest, time.monotonic() - asked)
            if not size:
                break
            got += size
        return {"bytes": got, "seconds": time.monotonic() - began, "slowest": slowest, "offset": offset}


class Tail:
    """One record a publish at a fixed rate, and a consumer at the end; how long each took to come back."""

    def __init__(self, bootstrap, topic, rate, seconds):
        self.topic, self.rate, self.count = topic, rate, int(rate * seconds)
        self.producer, self.consumer = Wire(bootstrap, timeout=30), Wire(bootstrap, timeout=30)
        self.first = self.consumer.fetch(topic, 0, 0, bytes_max=1, wait_ms=0)[1]
        self.sent, self.answered, self.came = [], [], []

    def publish(self):
        body = produce_body(self.topic, batch([os.urandom(100)]))
        began = time.perf_counter()
        for index in range(self.count):
            pause = began + index / self.rate - time.perf_counter()
            if pause > 0:
                time.sleep(pause)
            # From when it was due: a server that stops for a while is not excused what could not be sent meanwhile.
            self.sent.append(began + index / self.rate)
            self.producer.send(PRODUCE, 7, body)

    def answers(self):
        for _ in range(self.count):
            _, answer = self.producer.receive()
            assert produce_answer(answer)[0] == 0
            self.answered.append(time.perf_counter())

    def consume(self):
        frames, offset, end = Frames(self.consumer), self.first, self.first + self.count
        while offset < end:
            self.consumer.send(FETCH, 4, fetch_body(self.topic, 0, offset, MIB))
            upto, _ = next_offset(frames.receive(), self.topic, offset)
            now = time.perf_counter()
            self.came.extend([now] * (upto - offset))
            offset = upto

    def run(self):
        threads = [threading.Thread(target=step) for step in (self.consume, self.answers, self.publish)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return {"end_to_end": spread(self.came, self.sent), "publish": spread(self.answered, self.sent)}


def spread(ends, begins):
    """Milliseconds."""
    took = sorted((end - begin) * 1000 for end, begin in zip(ends, begins, strict=True))
    return {"p50": took[len(took) // 2], "p99": took[len(took) * 99 // 100], "max": took[-1]}


if __name__ == "__main__":
    # By default a thread may keep the interpreter for 5 ms, more than what is to be measured.
    sys.setswitchinterval(0.0001)
    what, bootstrap, topic, *numbers = sys.argv[1:]
    numbers = [int(number) for number in numbers]
    print(json.dumps(catch_up(bootstrap, topic, *numbers) if what == "catch-up" else Tail(bootstrap, topic, *numbers).run()))
