"""kafka-python and aiokafka: two codecs written in Python by different people."""

import asyncio
import threading
import time

import aiokafka
import kafka
from kafka.errors import KafkaError

from .base import Member, Peer, PeerError, Record

TIMESTAMP_TYPES = {0: "CreateTime", 1: "LogAppendTime"}


def plain(message):
    return Record(
        key=message.key,
        value=message.value,
        headers=list(message.headers),
        timestamp=message.timestamp,
        offset=message.offset,
        partition=message.partition,
        timestamp_type=TIMESTAMP_TYPES.get(message.timestamp_type),
    )


def codec_name(codec):
    return None if codec == "none" else codec


class KafkaPythonPeer(Peer):
    name = "kafka-python"
    lacks = frozenset({"consumer protocol", "null header values"})

    def produce(self, bootstrap, topic, records, codec="none", partition=0, **config):
        settings = {name.replace(".", "_"): value for name, value in config.items()}
        producer = kafka.KafkaProducer(bootstrap_servers=bootstrap, compression_type=codec_name(codec), linger_ms=20, **settings)
        try:
            sent = [
                producer.send(
                    topic, value=record.value, key=record.key, headers=record.headers, partition=partition, timestamp_ms=record.timestamp
                )
                for record in records
            ]
            producer.flush(timeout=30)
            return [future.get(timeout=30).offset for future in sent]
        except KafkaError as failed:
            raise PeerError(type(failed).__name__, str(failed)) from failed
        finally:
            producer.close(timeout=5)

    def consume(self, bootstrap, topics, partition=0, timeout=30, **config):
        consumer = kafka.KafkaConsumer(bootstrap_servers=bootstrap, fetch_max_wait_ms=100, enable_auto_commit=False, **config)
        got = {topic: [] for topic in topics}
        try:
            partitions = [kafka.TopicPartition(topic, partition) for topic in topics]
            consumer.assign(partitions)
            consumer.seek_to_beginning(*partitions)
            deadline = time.monotonic() + timeout
            while any(len(got[topic]) < count for topic, count in topics.items()) and time.monotonic() < deadline:
                for messages in consumer.poll(timeout_ms=200).values():
                    for message in messages:
                        got[message.topic].append(plain(message))
        finally:
            consumer.close()
        return got

    def join(self, bootstrap, group, topics, protocol="classic", instance=None, **config):
        assert protocol == "classic", "kafka-python knows the classic protocol only"
        return KafkaPythonMember(bootstrap, group, topics, instance, config)


class KafkaPythonMember(Member, kafka.ConsumerRebalanceListener):
    name = "kafka-python"

    def __init__(self, bootstrap, group, topics, instance, config):
        self.lock = threading.Lock()
        self.records, self.events, self.held, self.error = [], [], set(), None
        self.stopping = threading.Event()
        self.consumer = kafka.KafkaConsumer(
            bootstrap_servers=bootstrap,
            group_id=group,
            group_instance_id=instance,
            enable_auto_commit=False,
            fetch_max_wait_ms=100,
            auto_offset_reset="earliest",
            heartbeat_interval_ms=500,
            session_timeout_ms=10000,
            metadata_max_age_ms=2000,
            **config,
        )
        self.consumer.subscribe(topics, listener=self)
        self.thread = threading.Thread(target=self.poll, daemon=True)
        self.thread.start()

    def on_partitions_assigned(self, assigned):
        self.note("assigned", assigned)

    def on_partitions_revoked(self, revoked):
        self.note("revoked", revoked)

    def note(self, what, partitions):
        with self.lock:
            self.events.append((what, sorted(f"{p.topic}-{p.partition}" for p in partitions)))

    def poll(self):
        try:
            while not self.stopping.is_set():
                polled = self.consumer.poll(timeout_ms=100)
                self.mend_lost_join()
                with self.lock:
                    for messages in polled.values():
                        self.records += map(plain, messages)
                    self.held = {f"{p.topic}-{p.partition}" for p in self.consumer.assignment()}
                if polled:
                    try:
                        self.consumer.commit()
                    except KafkaError:
                        self.note("commit failed", [])
        except Exception as failed:  # noqa: BLE001: whatever ends the member is its state
            self.error = f"{type(failed).__name__}: {failed}"

    def mend_lost_join(self):
        """Joins again after a join whose answer kafka-python 3.0.12 forgot.

        When a poll times out while JoinGroup or SyncGroup is under way, the join goes on in the client's own thread. If it ends before the next
        poll, `need_rejoin()` is false again and nobody hands its assignment over: the member holds nothing, sends no heartbeat and is expelled.
        The first metadata comes 100 ms after `subscribe`, just when the first poll of 100 ms ends.
        """
        coordinator = self.consumer._coordinator
        join = coordinator._join_task
        if coordinator.rejoining and join is not None and join.is_done and not coordinator.need_rejoin():
            coordinator.request_rejoin()

    def state(self):
        with self.lock:
            return {
                "assignment": sorted(self.held),
                "events": list(self.events),
                "records": list(self.records),
                "member_id": None,
                "generation": None,
                "error": self.error,
            }

    def leave(self, remain=False):
        if self.stopping.is_set():
            return
        self.stopping.set()
        self.thread.join(30)
        self.consumer.close()


class AiokafkaPeer(Peer):
    name = "aiokafka"
    lacks = frozenset({"consumer protocol"})

    def produce(self, bootstrap, topic, records, codec="none", partition=0, **config):
        settings = {name.replace(".", "_"): value for name, value in config.items()}
        return asyncio.run(self.send(bootstrap, topic, records, codec, partition, settings))

    async def send(self, bootstrap, topic, records, codec, partition, settings):
        producer = aiokafka.AIOKafkaProducer(bootstrap_servers=bootstrap, compression_type=codec_name(codec), linger_ms=20, **settings)
        try:
            await producer.start()
            sent = [
                await producer.send(
                    topic, value=record.value, key=record.key, headers=record.headers, partition=partition, timestamp_ms=record.timestamp
                )
                for record in records
            ]
            answers = [await asyncio.wait_for(future, 30) for future in sent]
            return [None if answer is None else answer.offset for answer in answers]
        except aiokafka.errors.KafkaError as failed:
            raise PeerError(type(failed).__name__, str(failed)) from failed
        finally:
            await producer.stop()

    def consume(self, bootstrap, topics, partition=0, timeout=30):
        return asyncio.run(self.receive(bootstrap, topics, partition, timeout))

    async def receive(self, bootstrap, topics, partition, timeout):
        consumer = aiokafka.AIOKafkaConsumer(bootstrap_servers=bootstrap, fetch_max_wait_ms=100, enable_auto_commit=False)
        got = {topic: [] for topic in topics}
        await consumer.start()
        try:
            partitions = [aiokafka.TopicPartition(topic, partition) for topic in topics]
            consumer.assign(partitions)
            await consumer.seek_to_beginning(*partitions)
            deadline = time.monotonic() + timeout
            while any(len(got[topic]) < count for topic, count in topics.items()) and time.monotonic() < deadline:
                for messages in (await consumer.getmany(timeout_ms=200)).values():
                    for message in messages:
                        got[message.topic].append(plain(message))
        finally:
            await consumer.stop()
        return got

    def join(self, bootstrap, group, topics, protocol="classic", instance=None, **config):
        assert protocol == "classic", "aiokafka knows the classic protocol only"
        return AiokafkaMember(bootstrap, group, topics, instance, config)


class AiokafkaMember(Member, aiokafka.ConsumerRebalanceListener):
    name = "aiokafka"

    def __init__(self, bootstrap, group, topics, instance, config):
        self.settings = dict(
            bootstrap_servers=bootstrap,
            group_id=group,
            group_instance_id=instance,
            enable_auto_commit=False,
            fetch_max_wait_ms=100,
            auto_offset_reset="earliest",
            heartbeat_interval_ms=500,
            session_timeout_ms=10000,
            metadata_max_age_ms=2000,
            **config,
        )
        self.topics = topics
        self.records, self.events, self.held, self.error = [], [], set(), None
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=lambda: asyncio.run(self.poll()), daemon=True)
        self.thread.start()

    async def on_partitions_assigned(self, assigned):
        self.note("assigned", assigned)

    async def on_partitions_revoked(self, revoked):
        self.note("revoked", revoked)

    def note(self, what, partitions):
        self.events.append((what, sorted(f"{p.topic}-{p.partition}" for p in partitions)))

    async def poll(self):
        consumer = aiokafka.AIOKafkaConsumer(**self.settings)
        try:
            consumer.subscribe(self.topics, listener=self)
            await consumer.start()
            while not self.stopping.is_set():
                polled = await consumer.getmany(timeout_ms=100)
                for messages in polled.values():
                    self.records += map(plain, messages)
                self.held = {f"{p.topic}-{p.partition}" for p in consumer.assignment()}
                if polled:
                    try:
                        await consumer.commit()
                    except aiokafka.errors.KafkaError:
                        self.note("commit failed", [])
        except Exception as failed:  # noqa: BLE001: whatever ends the member is its state
            self.error = f"{type(failed).__name__}: {failed}"
        finally:
            await consumer.stop()

    def state(self):
        return {
            "assignment": sorted(self.held),
            "events": list(self.events),
            "records": list(self.records),
            "member_id": None,
            "generation": None,
            "error": self.error,
        }

    def leave(self, remain=False):
        self.stopping.set()
        self.thread.join(30)
