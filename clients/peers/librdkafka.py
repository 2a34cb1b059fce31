"""confluent-kafka: librdkafka behind Python."""

import threading
import time

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Producer, TopicPartition

from .base import Member, Peer, PeerError, Record

# Refused connections while a test has stopped the server are no news.
QUIET = {"log_level": 0}


def plain(message):
    return Record(
        key=message.key(),
        value=message.value(),
        headers=message.headers() or [],
        timestamp=message.timestamp()[1],
        offset=message.offset(),
        partition=message.partition(),
        timestamp_type={1: "CreateTime", 2: "LogAppendTime"}.get(message.timestamp()[0]),
    )


class LibrdkafkaPeer(Peer):
    name = "confluent-kafka"

    def produce(self, bootstrap, topic, records, codec="none", partition=0, **config):
        producer = Producer(
            {"bootstrap.servers": bootstrap, "compression.type": codec, "linger.ms": 20, "message.timeout.ms": 30000, **QUIET, **config}
        )
        answers = {}

        def delivered(index):
            return lambda error, message: answers.__setitem__(index, error or message.offset())

        for index, record in enumerate(records):
            options = {} if record.timestamp is None else {"timestamp": record.timestamp}
            producer.produce(
                topic,
                value=record.value,
                key=record.key,
                partition=-1 if partition is None else partition,
                headers=record.headers,
                on_delivery=delivered(index),
                **options,
            )
        if producer.flush(60) != 0:
            raise TimeoutError("confluent-kafka: flush")
        for answer in answers.values():
            if isinstance(answer, KafkaError):
                raise PeerError(answer.name(), answer.str())
        return [answers[index] for index in range(len(records))]

    def consume(self, bootstrap, topics, partition=0, timeout=30, **config):
        consumer = Consumer(
            {"bootstrap.servers": bootstrap, "group.id": "unused", "enable.auto.commit": False, "fetch.wait.max.ms": 100, **QUIET, **config}
        )
        got = {topic: [] for topic in topics}
        try:
            consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for topic in topics])
            deadline = time.monotonic() + timeout
            while any(len(got[topic]) < count for topic, count in topics.items()) and time.monotonic() < deadline:
                for message in consumer.consume(1000, 0.2):
                    if message.error():
                        raise PeerError(message.error().name(), message.error().str())
                    got[message.topic()].append(plain(message))
        finally:
            consumer.close()
        return got

    def join(self, bootstrap, group, topics, protocol="classic", instance=None, pattern=None, **config):
        return LibrdkafkaMember(bootstrap, group, [f"^{pattern}"] if pattern else topics, protocol, instance, config)


class LibrdkafkaMember(Member):
    name = "confluent-kafka"

    def __init__(self, bootstrap, group, topics, protocol, instance, config):
        full = {
            "bootstrap.servers": bootstrap,
            "group.id": group,
            "group.protocol": protocol,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 100,
            "topic.metadata.refresh.interval.ms": 2000,
            **QUIET,
        }
        if protocol == "classic":
            full |= {"heartbeat.interval.ms": 500, "session.timeout.ms": 10000}
        if instance is not None:
            full["group.instance.id"] = instance
        self.consumer = Consumer(full | config)
        self.lock = threading.Lock()
        self.records, self.events = [], []
        self.held, self.error = set(), None
        self.member_id, self.stopping = "", threading.Event()
        self.consumer.subscribe(topics, on_assign=self.on_assign, on_revoke=self.on_revoke, on_lost=self.on_lost)
        self.thread = threading.Thread(target=self.poll, daemon=True)
        self.thread.start()

    # The rebalance listener: librdkafka assigns by itself after each of these.
    def on_assign(self, consumer, partitions):
        self.note("assigned", partitions)

    def on_revoke(self, consumer, partitions):
        self.note("revoked", partitions)

    def on_lost(self, consumer, partitions):
        self.note("lost", partitions)

    def note(self, what, partitions):
        with self.lock:
            self.events.append((what, sorted(f"{p.topic}-{p.partition}" for p in partitions)))

    def poll(self):
        while not self.stopping.is_set():
            messages = self.consumer.consume(500, 0.1)
            good = [message for message in messages if not message.error()]
            bad = [message.error() for message in messages if message.error()]
            with self.lock:
                self.records += map(plain, good)
                self.held = {f"{p.topic}-{p.partition}" for p in self.consumer.assignment()}
                self.member_id = self.consumer.memberid()
                for error in bad:
                    if error.fatal():
                        self.error = str(error)
            if good:
                try:
                    self.consumer.commit(asynchronous=False)
                except KafkaException as failed:
                    self.events.append(("commit failed", failed.args[0].name()))

    def state(self):
        with self.lock:
            return {
                "assignment": sorted(self.held),
                "events": list(self.events),
                "records": list(self.records),
                "member_id": self.member_id,
                "generation": None,
                "error": self.error,
            }

    def leave(self, remain=False):
        if self.stopping.is_set():
            return
        self.stopping.set()
        self.thread.join(30)
        self.consumer.close()
