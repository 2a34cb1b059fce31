"""A volume of 64 MiB that is filled again and again: publishers wait, everything else goes on, nothing acknowledged is lost."""

import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from load import Load
from peers.base import Record
from publisher import PARTITIONS
from volume import Volume
from waiting import wait_until
from wire import Wire, batch

CYCLES = int(os.environ.get("FIRTH_FULL_CYCLES", "3"))
CLIENTS_GO_ON_SECONDS = 10  # each client finds out by its own clock, after a restart by that of its reconnects
STORAGE_ERROR = 56  # Kafka's KAFKA_STORAGE_ERROR, which clients try again
RESUMES_SECONDS = 5
# How space comes back, in turn. "brim": before that, somebody else takes the very last block, and the server is killed.
WAYS = tuple(os.environ.get("FIRTH_FULL_WAYS", "records ballast brim topic retention").split())


@pytest.fixture
def volume(tmp_path):
    made = Volume(tmp_path, 64)
    yield made
    made.close()


class Drill:
    def __init__(self, server, volume, load, java):
        from confluent_kafka.admin import AdminClient

        self.server, self.volume, self.load = server, volume, load
        # A client of its own after a restart: one that saw the server go says for a while that nobody leads.
        self.connect = lambda: AdminClient({"bootstrap.servers": server.bootstrap, "log_level": 0})
        self.admin = self.connect()
        self.refused = 0.0
        self.java, self.patient, self.threads = java, 0, ThreadPoolExecutor(1)
        self.create("probe")
        self.create("java")

    def create(self, topic):
        from confluent_kafka.admin import NewTopic

        self.admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(10)

    def publish(self, topic, bytes_each):
        """One raw publish; the error code."""
        with Wire(self.server.bootstrap) as wire:
            began = time.monotonic()
            error = wire.produce(topic, batch([b"w" * bytes_each]))[0]
            self.refused = max(self.refused, time.monotonic() - began) if error else self.refused
            return error

    def fill(self, topic):
        """Publishes until it is refused, as everybody then is."""
        payload = batch([b"w" * (300 << 10)])
        with Wire(self.server.bootstrap) as wire:
            for _ in range(400):
                error = wire.produce(topic, payload)[0]
                if error:
                    break
        assert error == STORAGE_ERROR, error
        assert self.publish(topic, 10) == STORAGE_ERROR

    def delete_records(self, ends):
        """`ends`: {(topic, partition): offset}; -1 is the end of the log."""
        from confluent_kafka import TopicPartition

        wanted = [TopicPartition(topic, partition, offset) for (topic, partition), offset in ends.items()]
        for done in self.admin.delete_records(wanted).values():
            done.result(10)

    def delete_what_was_read(self):
        self.delete_records({(self.load.topic, partition): self.load.next[partition] for partition in range(PARTITIONS)})

    def goes_on_while_full(self, topic, cycle):
        """Reads, group operations and commits on a full volume."""
        from confluent_kafka import Consumer, TopicPartition

        self.load.read()
        consumer = Consumer(
            {
                "bootstrap.servers": self.server.bootstrap,
                "group.id": f"group-{cycle}",
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                "log_level": 0,
            }
        )
        consumer.subscribe([topic])
        message = consumer.poll(20)
        assert message is not None and message.error() is None, message
        consumer.commit(offsets=[TopicPartition(topic, 0, 1)], asynchronous=False)
        assert consumer.committed([TopicPartition(topic, 0)], timeout=10)[0].offset == 1
        consumer.close()

    def free(self, way, topic, ballast):
        from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource

        if ballast:
            ballast.unlink()
        if way == "ballast":
            return
        self.delete_what_was_read()
        if way == "records":
            self.delete_records({(topic, 0): -1})
        elif way == "retention":
            smaller = ConfigEntry("retention.bytes", "1", incremental_operation=AlterConfigOpType.SET)
            resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=[smaller])
            for done in self.admin.incremental_alter_configs([resource]).values():
                done.result(10)
        else:
            self.admin.delete_topics([topic])[topic].result(10)

    def cycle(self, cycle, way):
        topic = f"waste-{cycle}"
        self.create(topic)
        ballast = self.volume.fill("ballast", 20 << 20) if way == "ballast" else None
        self.fill(topic)
        self.goes_on_while_full(topic, cycle)
        if way == "brim":
            ballast = self.volume.fill("ballast")
        if way in ("brim", "retention"):
            self.server.kill9()
            took = self.server.start()
            self.admin = self.connect()
            print(f"  killed while full, started in {took:.2f} s")
            # A start may find room in what was deleted before the kill.
            self.fill(topic)
            self.load.read()
        before = self.load.acks.now()
        java = self.java_waits() if way == "ballast" else None
        self.free(way, topic, ballast)
        freed = time.monotonic()
        wait_until(lambda: self.publish("probe", 10) == 0, RESUMES_SECONDS, "publishing resumes", every=0.01)
        took = time.monotonic() - freed
        self.load.goes_on(before, CLIENTS_GO_ON_SECONDS)
        print(f"cycle {cycle}, {way}: publishing resumes after {took:.2f} s, all four publishers after {time.monotonic() - freed:.2f} s")
        if java:
            # At the next offset: it was there once.
            assert java.result(30) == [self.patient]
            self.patient += 1
        self.load.read()
        self.delete_what_was_read()
        self.delete_records({("probe", 0): -1, ("java", 0): -1})
        if way not in ("topic", "brim"):
            self.admin.delete_topics([topic])[topic].result(10)
        wait_until(lambda: self.free_mib() >= 24, 20, lambda: f"space comes back, {self.free_mib()} MiB are free")
        return took

    def java_waits(self):
        """The Java client publishes while the volume is full; gives the future of the offsets."""
        return self.threads.submit(self.java.produce, self.server.bootstrap, "java", [Record(value=b"patient")])

    def free_mib(self):
        state = os.statvfs(self.volume.path)
        return state.f_bavail * state.f_frsize >> 20


@pytest.mark.timeout(60 + 40 * CYCLES)
def test_a_full_disk_refuses_publishers_and_nobody_else(volume, make_server, java, tmp_path):
    server = make_server(settings={"log": "info"})
    server.data = volume.path / "data"
    server.start()
    java.admin(server.bootstrap, "create_topic", topic="log", partitions=PARTITIONS)
    load = Load(server.bootstrap, "log", tmp_path)
    try:
        load.resumes(20)
        extents = [file for file in (server.data / "journal/0").iterdir() if file.suffix == ".fj"]
        assert all(file.stat().st_size == 4 << 20 for file in extents), extents
        drill = Drill(server, volume, load, java)
        slowest = max(drill.cycle(cycle, WAYS[cycle % len(WAYS)]) for cycle in range(CYCLES))
        acked, repeats = load.end()
    finally:
        load.kill()
    print(f"{CYCLES} times full: slowest to go on {slowest:.2f} s, slowest refusal {drill.refused:.3f} s")
    print(f"acknowledged {acked}, all read back; repeats of plain publishers {repeats}")
