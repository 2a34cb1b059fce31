"""One publisher of the crash test, a process of its own: writes what it tries and what was acknowledged to its own file.

Lines of the file: `A <sequence> <partition>` before a record is handed to the client, `K <sequence> <partition> <offset>` when the
client says that it is acknowledged, `F <sequence> <error>` when it gives up. Ends when its standard input is closed.
"""

import os
import select
import sys
import time

PARTITIONS = 3
IN_FLIGHT = 500


def main():
    kind, name, bootstrap, topic, path, rate = sys.argv[1:7]
    log = open(path, "a", buffering=1)
    {"librdkafka": librdkafka, "kafka-python": kafka_python}[kind.split("/")[0]](
        kind.endswith("/idempotent"), name, bootstrap, topic, log, int(rate)
    )
    log.write("END\n")
    log.close()


def asked_to_stop():
    return bool(select.select([sys.stdin], [], [], 0)[0])


def paced(rate):
    """Gives sequence numbers, `rate` a second, until standard input is closed."""
    began, sequence = time.monotonic(), 0
    while not asked_to_stop():
        due = int((time.monotonic() - began) * rate)
        if sequence >= due:
            time.sleep(0.002)
        while sequence < due:
            yield sequence
            sequence += 1


def payload(name, sequence):
    return f"{name} {sequence} ".encode() + b"." * (sequence * 37 % 200)


def librdkafka(idempotent, name, bootstrap, topic, log, rate):
    from confluent_kafka import Producer

    config = {
        "bootstrap.servers": bootstrap,
        "linger.ms": 2,
        "message.timeout.ms": 600_000,
        "log_level": 0,
        "reconnect.backoff.ms": 20,
        "reconnect.backoff.max.ms": 200,
        "retry.backoff.ms": 20,
        "retries": 1_000_000,
        "compression.type": "lz4" if idempotent else "none",
        "socket.timeout.ms": 10_000,
        "request.timeout.ms": 5_000,
    }
    if idempotent:
        config |= {"enable.idempotence": True, "max.in.flight.requests.per.connection": 5}
    else:
        # order is promised to a producer that may repeat itself only with one request in flight
        config |= {"max.in.flight.requests.per.connection": 1, "acks": "all"}
    producer = Producer(config)
    open_records = [0]

    def delivered(sequence, partition):
        def done(error, message):
            open_records[0] -= 1
            log.write(f"F {sequence} {error.name()}\n" if error else f"K {sequence} {partition} {message.offset()}\n")

        return done

    for sequence in paced(rate):
        while open_records[0] >= IN_FLIGHT and not asked_to_stop():
            producer.poll(0.01)
        partition = sequence % PARTITIONS
        log.write(f"A {sequence} {partition}\n")
        open_records[0] += 1
        producer.produce(topic, payload(name, sequence), partition=partition, on_delivery=delivered(sequence, partition))
        producer.poll(0)
    producer.flush(60)


def kafka_python(idempotent, name, bootstrap, topic, log, rate):
    import logging

    from kafka import KafkaProducer

    logging.disable(logging.CRITICAL)
    producer = KafkaProducer(
        bootstrap_servers=bootstrap,
        enable_idempotence=idempotent,
        acks="all",
        linger_ms=2,
        retries=1_000_000,
        max_in_flight_requests_per_connection=1,
        delivery_timeout_ms=600_000,
        request_timeout_ms=5_000,
        reconnect_backoff_ms=20,
        reconnect_backoff_max_ms=200,
        retry_backoff_ms=20,
        max_block_ms=60_000,
    )
    pending = []

    def settle(wait):
        while pending and (wait or pending[0][2].is_done or len(pending) >= IN_FLIGHT):
            sequence, partition, future = pending[0]
            try:
                log.write(f"K {sequence} {partition} {future.get(timeout=60 if wait else 0.05).offset}\n")
            except Exception as failed:  # noqa: BLE001: whatever the client says is what is logged
                if future.succeeded():
                    # Just as the wait for it ended.
                    continue
                if not future.is_done and not wait:
                    if asked_to_stop():
                        return
                    continue
                log.write(f"F {sequence} {type(failed).__name__}\n")
            pending.pop(0)

    for sequence in paced(rate):
        partition = sequence % PARTITIONS
        log.write(f"A {sequence} {partition}\n")
        pending.append((sequence, partition, producer.send(topic, payload(name, sequence), partition=partition)))
        settle(wait=False)
    settle(wait=True)


if __name__ == "__main__":
    main()
    # clients may keep threads that no longer matter
    sys.stdout.flush()
    os._exit(0)
