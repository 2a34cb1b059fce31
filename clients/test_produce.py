"""What a producer is promised: acknowledgements, idempotence, times, limits, and bytes that come back as they went."""

import struct
import threading
import time

import pytest
from confluent_kafka import KafkaException, Producer
from peers.base import PeerError, Record
from waiting import wait_until
from wire import CODEC_BITS, PRODUCE, Wire, batch, produce_answer, produce_body, split_batches

WRITERS = ("confluent-kafka", "kafka-python", "aiokafka", "kafkajs", "java")
CODECS = tuple(CODEC_BITS)
# error codes of the protocol
NONE, CORRUPT, OUT_OF_ORDER = 0, 2, 45


def acks_config(name, acks):
    """Each client's own way to say how many acknowledgements it wants."""
    config = {"acks": "all" if acks == -1 and name in ("kafka-python", "aiokafka", "java") else acks}
    if name == "java":
        config["enable.idempotence"] = "false"
    if name == "kafka-python":
        config["enable_idempotence"] = False
    return config


@pytest.mark.parametrize("acks", [0, 1, -1])
@pytest.mark.parametrize("name", WRITERS)
def test_acks(node, peers, java, fresh, name, acks):
    """Whatever a producer waits for, its records arrive once and in order."""
    topic = fresh()
    java.admin(node.bootstrap, "create_topic", topic=topic, partitions=1)
    records = [Record(None, f"{name} {index}".encode()) for index in range(20)]
    peers(name).produce(node.bootstrap, topic, records, **acks_config(name, acks))
    got = java.consume(node.bootstrap, {topic: 20})[topic]
    assert [record.value for record in got] == [record.value for record in records]


@pytest.mark.parametrize(
    "name, config",
    [
        ("confluent-kafka", {"enable.idempotence": True}),
        ("java", {"enable.idempotence": "true"}),
        ("kafka-python", {"enable_idempotence": True}),
        ("aiokafka", {"enable_idempotence": True}),
        ("kafkajs", {"idempotent": True}),
    ],
)
def test_idempotent_producers(node, peers, java, fresh, name, config):
    """Producer ids are given, sequences accepted across many batches, and the batches carry them."""
    topic = fresh()
    java.admin(node.bootstrap, "create_topic", topic=topic, partitions=1)
    records = [Record(None, f"{index}".encode() * 50) for index in range(300)]
    small = {"confluent-kafka": {"batch.num.messages": 10}, "java": {"batch.size": "1000"}, "kafka-python": {"batch_size": 1000}}
    peers(name).produce(node.bootstrap, topic, records, **config, **small.get(name, {}))
    got = java.consume(node.bootstrap, {topic: 300})[topic]
    assert [record.value for record in got] == [record.value for record in records]
    (producer,) = java.admin(node.bootstrap, "describe_producers", topic=topic)
    assert producer["sequence"] == 299
    with Wire(node.bootstrap) as wire:
        for one in split_batches(wire.fetch(topic)[2]):
            assert struct.unpack_from(">qh", one, 43) == (producer["id"], 0)


def test_sequences_are_checked(node, java, fresh):
    """A batch sent again is answered with its old offset and stored once; a hole in the sequence is refused."""
    topic = fresh()
    java.admin(node.bootstrap, "create_topic", topic=topic, partitions=1)
    with Wire(node.bootstrap) as wire:
        producer, epoch = wire.init_producer_id()
        sent = [batch([b"a%d" % index, b"b%d" % index], producer=(producer, epoch, 2 * index)) for index in range(6)]
        for index, one in enumerate(sent):
            assert wire.produce(topic, one)[:2] == (NONE, 2 * index)
        for index in range(1, 6):
            assert wire.produce(topic, sent[index])[:2] == (NONE, 2 * index), "one of the last five, again"
        assert wire.produce(topic, batch([b"hole"], producer=(producer, epoch, 99)))[0] == OUT_OF_ORDER
        assert wire.produce(topic, batch([b"next"], producer=(producer, epoch, 12)))[:2] == (NONE, 12)
        other, _ = wire.init_producer_id()
        assert other != producer
        assert wire.fetch(topic)[1] == 13


def test_log_append_time(node, peers, java, fresh):
    """The server's clock replaces the producer's, also in compressed batches, and every client sees it."""
    topic = fresh()
    java.admin(node.bootstrap, "create_topic", topic=topic, partitions=1, configs={"message.timestamp.type": "LogAppendTime"})
    before = int(time.time() * 1000)
    java.produce(node.bootstrap, topic, [Record(None, b"plain", timestamp=1), Record(None, b"too", timestamp=2)])
    peers("confluent-kafka").produce(node.bootstrap, topic, [Record(None, b"packed", timestamp=3)], "gzip")
    after = int(time.time() * 1000)
    for name in ("java", "confluent-kafka", "kafka-python", "aiokafka"):
        for record in peers(name).consume(node.bootstrap, {topic: 3})[topic]:
            assert before - 1 <= record.timestamp <= after + 1, name
            assert record.timestamp_type == "LogAppendTime", name
    with Wire(node.bootstrap) as wire:
        error, base, append_time = wire.produce(topic, batch([b"raw"], timestamp=4))
        assert (error, base) == (NONE, 3) and before <= append_time <= int(time.time() * 1000) + 1


def test_too_large_is_refused(node, peers, java, fresh):
    """A batch above `max.message.bytes` is refused as too large, and its size is that of the batch as sent."""
    topic = fresh()
    java.admin(node.bootstrap, "create_topic", topic=topic, partitions=1, configs={"max.message.bytes": "10000"})
    noise = bytes(index * 7919 % 251 for index in range(12_000))
    with pytest.raises(PeerError) as caught:
        java.produce(node.bootstrap, topic, [Record(None, noise)])
    assert caught.value.name == "RecordTooLargeException"
    with pytest.raises(PeerError) as caught:
        peers("confluent-kafka").produce(node.bootstrap, topic, [Record(None, noise)])
    assert caught.value.name == "MSG_SIZE_TOO_LARGE"
    with pytest.raises(PeerError) as caught:
        peers("kafka-python").produce(node.bootstrap, topic, [Record(None, noise)])
    assert caught.value.name in ("MessageSizeTooLargeError", "RecordTooLargeError")
    assert java.produce(node.bootstrap, topic, [Record(None, b"z" * 100_000)], "zstd") == [0]
    assert java.consume(node.bootstrap, {topic: 1})[topic][0].value == b"z" * 100_000


@pytest.mark.parametrize("name", ("kcat", *WRITERS))
def test_unknown_topic_is_made(node, peers, java, fresh, name):
    topic = fresh(f"auto-{name}")
    peers(name).produce(node.bootstrap, topic, [Record(None, b"first")])
    assert [record.value for record in java.consume(node.bootstrap, {topic: 1})[topic]] == [b"first"]
    assert len(java.admin(node.bootstrap, "describe_topic", topic=topic)["partitions"]) == 1


def test_consumer_that_forbids_it_makes_no_topic(node, java, fresh):
    topic = fresh()
    member = java.join(node.bootstrap, fresh("group"), [topic], **{"allow.auto.create.topics": "false"})
    wait_until(lambda: member.state()["generation"] >= 1, 20, "joined")
    assert topic not in java.admin(node.bootstrap, "list_topics")
    member.leave()


@pytest.mark.parametrize("codec", CODECS)
def test_batches_come_back_byte_for_byte(node, java, fresh, codec):
    """Only the base offset and the leader epoch, which the checksum does not cover, may differ from what was sent."""
    topic = fresh()
    java.admin(node.bootstrap, "create_topic", topic=topic, partitions=1)
    sent = [batch([b"%d-%d" % (number, index) * 40 for index in range(20)], codec) for number in range(3)]
    with Wire(node.bootstrap) as wire:
        for number, one in enumerate(sent):
            assert wire.produce(topic, one)[:2] == (NONE, 20 * number)
        error, high, raw = wire.fetch(topic)
    assert (error, high) == (NONE, 60)
    got = split_batches(raw)
    assert [struct.unpack_from(">q", one)[0] for one in got] == [0, 20, 40]
    assert [one[8:12] + one[16:] for one in got] == [one[8:12] + one[16:] for one in sent]
    # and a client's codec agrees that they are sound
    records = java.consume(node.bootstrap, {topic: 60})[topic]
    assert records[21].value == b"1-1" * 40


BROKEN = {
    "wrong checksum": (lambda: flip(batch([b"abc"]), 64), CORRUPT),
    "length beyond the data": (lambda: resize(batch([b"abc"]), 5), None),
    "old format": (lambda: batch([b"abc"], magic=1), None),
    "future format": (lambda: batch([b"abc"], magic=3), None),
    "fewer records than said": (lambda: batch([b"a", b"b"], count=3), None),
    "more records than said": (lambda: batch([b"a", b"b", b"c"], count=2), None),
    "compressed rubbish": (lambda: batch([b"abc"], "gzip", body=b"this is no gzip stream at all"), None),
    "zstd rubbish": (lambda: batch([b"abc"], "zstd", body=b"\x28\xb5\x2f\xfd" + b"\xff" * 40), None),
    "lz4 rubbish": (lambda: batch([b"abc"], "lz4", body=b"\x04\x22\x4d\x18" + b"\xff" * 40), None),
    "snappy rubbish": (lambda: batch([b"abc"], "snappy", body=b"\xff" * 40), None),
    "record longer than the batch": (lambda: batch([b"abc"], body=b"\x7e\x00\x00\x00\x01\x06abc\x00"), None),
    "unknown codec": (lambda: batch([b"abc"], attributes=7), None),
    "a control batch": (lambda: batch([b"abc"], attributes=0x20), None),
    "no records": (lambda: batch([], count=0), None),
    "no batch at all": (lambda: b"", None),
    "half a header": (lambda: batch([b"abc"])[:40], None),
}


def flip(data, at):
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def resize(data, more):
    return data[:8] + struct.pack(">i", struct.unpack_from(">i", data, 8)[0] + more) + data[12:]


@pytest.mark.parametrize("what", BROKEN)
def test_broken_batches_are_refused(node, java, fresh, what):
    """A batch that would poison a reader is never stored, and the next good one is."""
    topic = fresh()
    java.admin(node.bootstrap, "create_topic", topic=topic, partitions=1)
    make, wanted = BROKEN[what]
    with Wire(node.bootstrap) as wire:
        correlation = wire.send(PRODUCE, 7, produce_body(topic, make()))
        answered, answer = wire.receive()
        assert answered == correlation
        error = produce_answer(answer)[0]
        assert error != NONE and (wanted is None or error == wanted), error
        assert wire.produce(topic, batch([b"good"]))[:2] == (NONE, 0)
    assert [record.value for record in java.consume(node.bootstrap, {topic: 1})[topic]] == [b"good"]


def test_old_produce_versions_are_advertised_and_refused(node, java, fresh):
    """librdkafka takes a server that does not offer Produce 0 for one that cannot compress; nobody gets an answer in those versions."""
    with Wire(node.bootstrap) as wire:
        low, high = wire.api_versions()[PRODUCE]
        assert low == 0 and high >= 12


@pytest.mark.parametrize("name", ["confluent-kafka", "java", "kafka-python", "aiokafka"])
def test_transactional_ids_are_refused_at_once(node, peers, real_binary, fresh, name):
    """Until transactions exist, a client that wants one is told so fatally; none hangs."""
    topic, began = fresh(), time.monotonic()
    if name == "confluent-kafka":
        producer = Producer({"bootstrap.servers": node.bootstrap, "transactional.id": fresh("tx"), "log_level": 0})
        with pytest.raises(KafkaException) as caught:
            producer.init_transactions(30)
        assert caught.value.args[0].name() == "TRANSACTIONAL_ID_AUTHORIZATION_FAILED"
        assert caught.value.args[0].fatal()
    elif name == "java":
        with pytest.raises(PeerError) as caught:
            peers(name).produce(node.bootstrap, topic, [Record(None, b"x")], **{"transactional.id": fresh("tx"), "max.block.ms": "30000"})
        assert caught.value.name == "TransactionalIdAuthorizationException"
    else:
        outcome = []
        thread = threading.Thread(target=lambda: outcome.append(transaction_error(name, node.bootstrap, fresh("tx"))), daemon=True)
        thread.start()
        thread.join(30)
        assert outcome and "TransactionalIdAuthorizationFailed" in outcome[0], outcome
    assert time.monotonic() - began < 25


def transaction_error(name, bootstrap, transactional_id):
    """The name of the error with which a Python client gives up starting a transaction."""
    import asyncio

    import aiokafka
    import kafka

    async def start():
        producer = aiokafka.AIOKafkaProducer(bootstrap_servers=bootstrap, transactional_id=transactional_id)
        try:
            await producer.start()
        finally:
            await producer.stop()

    try:
        if name == "aiokafka":
            asyncio.run(start())
        else:
            kafka.KafkaProducer(bootstrap_servers=bootstrap, transactional_id=transactional_id).init_transactions()
    except Exception as failed:  # noqa: BLE001: the name is what is asked for
        return type(failed).__name__
    return "no error"


def test_long_poll_wakes_when_a_record_comes(node, java, fresh):
    """A fetch that waits is answered by the record, not by its time."""
    topic = fresh()
    java.admin(node.bootstrap, "create_topic", topic=topic, partitions=1)
    with Wire(node.bootstrap, timeout=30) as reader, Wire(node.bootstrap) as writer:
        wait_until(lambda: reader.fetch(topic, wait_ms=0)[0] == NONE, 10, "the new partition has its leader")
        began = time.monotonic()
        error, high, raw = reader.fetch(topic, wait_ms=400)
        assert (error, high, raw) == (NONE, 0, b"") and time.monotonic() - began >= 0.35
        timer = threading.Timer(0.3, lambda: writer.produce(topic, batch([b"wake"])))
        began = time.monotonic()
        timer.start()
        error, high, raw = reader.fetch(topic, wait_ms=20_000)
        timer.join()
        assert len(split_batches(raw)) == 1 and time.monotonic() - began < 10


def test_first_batch_comes_even_above_the_limit(node, java, fresh):
    topic = fresh()
    java.admin(node.bootstrap, "create_topic", topic=topic, partitions=1)
    with Wire(node.bootstrap) as wire:
        for number in range(3):
            assert wire.produce(topic, batch([bytes([65 + number]) * 50_000]))[0] == NONE
        error, high, raw = wire.fetch(topic, bytes_max=1000)
        assert error == NONE and high == 3
        assert split_batches(raw) and struct.unpack_from(">q", raw)[0] == 0
