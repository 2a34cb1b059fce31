"""A member of a consumer group that reads beside a drill."""

import threading

from waiting import wait_until


class Member(threading.Thread):
    """Subscribes, polls, commits what it got; `got` counts records."""

    def __init__(self, bootstrap, topic, group):
        from confluent_kafka import Consumer

        super().__init__(daemon=True)
        self.got, self.stopping, self.assigned = 0, False, set()
        self.consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": group,
                "auto.offset.reset": "earliest",
                "session.timeout.ms": 6000,
                "heartbeat.interval.ms": 1000,
                "auto.commit.interval.ms": 500,
                "reconnect.backoff.max.ms": 200,
                "log_level": 0,
            }
        )
        self.consumer.subscribe([topic], on_assign=self.gets, on_revoke=self.loses, on_lost=self.loses)
        self.start()

    def gets(self, _, partitions):
        self.assigned |= {partition.partition for partition in partitions}

    def loses(self, _, partitions):
        self.assigned -= {partition.partition for partition in partitions}

    def run(self):
        while not self.stopping:
            message = self.consumer.poll(0.1)
            if message is not None and message.error() is None:
                self.got += 1

    def goes_on(self, seconds):
        before = self.got
        wait_until(lambda: self.got > before, seconds, lambda: f"the group's member reads on; it has {self.assigned}")

    def close(self):
        self.stopping = True
        self.join()
        self.consumer.close()
