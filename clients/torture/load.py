"""Publishers in processes of their own, and a reader that keeps everything it saw: what every drill judges at its end."""

import subprocess
import sys
from pathlib import Path

from checker import Publisher, judge
from publisher import PARTITIONS
from test_crash import Acks
from waiting import wait_until

KINDS = {"p0": "librdkafka/idempotent", "p1": "librdkafka/plain", "p2": "kafka-python/plain", "p3": "kafka-python/idempotent"}


class Load:
    """Four publishers on one topic, from start to `end`."""

    def __init__(self, bootstrap, topic, directory, rate=150):
        self.bootstrap, self.topic = bootstrap, topic
        self.files = {name: directory / f"{name}.log" for name in KINDS}
        script = str(Path(__file__).parent.parent / "publisher.py")
        self.processes = {
            name: subprocess.Popen(
                [sys.executable, script, kind, name, bootstrap, topic, str(self.files[name]), str(rate)], stdin=subprocess.PIPE
            )
            for name, kind in KINDS.items()
        }
        self.acks = Acks(self.files)
        self.log = []
        self.next = [0] * PARTITIONS

    def resumes(self, seconds):
        """Waits until each publisher was acknowledged something new."""
        self.goes_on(self.acks.now(), seconds)

    def goes_on(self, before, seconds):
        def stuck():
            return f"acknowledged {before} before and {self.acks.now()} after"

        wait_until(lambda: all(count > before[name] for name, count in self.acks.now().items()), seconds, stuck, every=0.01)

    def read(self, group="reader"):
        """Reads on from where the last call ended to the end there was when it was called; returns how many records that was."""
        from confluent_kafka import Consumer, TopicPartition

        consumer = Consumer(
            {
                "bootstrap.servers": self.bootstrap,
                "group.id": group,
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
                "reconnect.backoff.max.ms": 200,
                "log_level": 0,
            }
        )
        count = 0
        try:
            for partition in range(PARTITIONS):
                end = consumer.get_watermark_offsets(TopicPartition(self.topic, partition), timeout=30)[1]
                if end <= self.next[partition]:
                    continue
                consumer.assign([TopicPartition(self.topic, partition, self.next[partition])])
                while self.next[partition] < end:
                    message = consumer.poll(20)
                    assert message is not None, f"nothing at {partition}/{self.next[partition]} below {end}"
                    assert message.error() is None, message.error()
                    self.log.append((partition, message.offset(), message.value()))
                    self.next[partition] = message.offset() + 1
                    count += 1
                consumer.unassign()
        finally:
            consumer.close()
        return count

    def end(self):
        """Stops the publishers, reads the rest, judges. Returns the sum of what was acknowledged and the repeats of plain publishers."""
        for process in self.processes.values():
            process.stdin.close()
        for name, process in self.processes.items():
            assert process.wait(90) == 0, name
        self.read()
        verdicts = [Publisher(name, KINDS[name].endswith("/idempotent"), path) for name, path in self.files.items()]
        faults, repeats = judge(verdicts, self.log)
        assert not faults, "\n".join(faults[:20])
        assert all(verdict.ended and not verdict.failed for verdict in verdicts), [(v.name, v.ended, v.failed) for v in verdicts]
        return sum(verdict.acked for verdict in verdicts), repeats

    def kill(self):
        for process in self.processes.values():
            process.kill()
            process.wait()
