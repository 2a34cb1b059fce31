"""The system's clock jumps under load: nothing is deleted for its age, timers go on, nothing is lost."""

import os
import subprocess
import time

import pytest
from conftest import had
from load import Load
from member import Member
from publisher import PARTITIONS
from waiting import wait_until

HOURS, YEARS = 3600, 365 * 24 * 3600
JUMPS = (HOURS - 60, -(HOURS - 60), 0, 10 * YEARS, -10 * YEARS, 0)
DAY_MS = 24 * 3600 * 1000


class Clock:
    """The time the server sees: the real one plus `offset` seconds."""

    def __init__(self, directory, library):
        self.file = directory / "clock"
        self.set(0)
        self.wrap = [
            "env",
            f"LD_PRELOAD={library}",
            f"FAKETIME_TIMESTAMP_FILE={self.file}",
            "FAKETIME_NO_CACHE=1",
            "FAKETIME_DONT_FAKE_MONOTONIC=1",
        ]

    def set(self, offset):
        # Whole or not at all: the server may read it at any moment.
        fresh = self.file.with_suffix(".fresh")
        fresh.write_text(f"{offset:+d}\n")
        os.replace(fresh, self.file)


def first_offsets(bootstrap, topic):
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "nobody", "log_level": 0})
    try:
        return [consumer.get_watermark_offsets(TopicPartition(topic, index), timeout=20)[0] for index in range(PARTITIONS)]
    finally:
        consumer.close()


def short_lived(bootstrap, topic):
    from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource

    day = ConfigEntry("retention.ms", str(DAY_MS), incremental_operation=AlterConfigOpType.SET)
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for done in admin.incremental_alter_configs(
        [ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=[day])]
    ).values():
        done.result(10)


def kcat_member(bootstrap, topic, group):
    kcat = had("kcat")
    command = [kcat["command"], "-q", "-b", bootstrap, "-X", "session.timeout.ms=6000", "-G", group, topic]
    environment = {**os.environ, "LD_LIBRARY_PATH": kcat["libraries"]}
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)


@pytest.mark.timeout(300)
def test_a_clock_that_jumps_deletes_nothing_and_stops_no_timer(make_server, java, tmp_path):
    clock = Clock(tmp_path, had("faketime")["library"])
    server = make_server(wrap=clock.wrap)
    server.start()
    java.admin(server.bootstrap, "create_topic", topic="log", partitions=PARTITIONS)
    short_lived(server.bootstrap, "log")
    load = Load(server.bootstrap, "log", tmp_path)
    member = Member(server.bootstrap, "log", "followers")
    try:
        load.resumes(30)
        member.goes_on(30)
        for jump in JUMPS:
            clock.set(jump)
            load.resumes(10)
            member.goes_on(10)
            if abs(jump) > HOURS:
                wait_until(lambda: server.said().count("clock jumped") > 0, 10, "the log says that the clock jumped")
        assert server.said().count("agrees again") >= 1, server.said()
        # A member that is killed while the clock is far behind is given up by a timer that still runs.
        clock.set(-10 * YEARS)
        killed = kcat_member(server.bootstrap, "log", "followers")
        wait_until(lambda: 0 < len(member.assigned) < PARTITIONS, 20, "the partitions are shared")
        killed.kill()
        killed.wait()
        wait_until(lambda: len(member.assigned) == PARTITIONS, 20, "the other member gets all partitions")
        # Retention looks every five seconds: let it look, with each of the clocks it might believe.
        looked = time.monotonic() + 6
        wait_until(lambda: time.monotonic() > looked, 10)
        assert first_offsets(server.bootstrap, "log") == [0] * PARTITIONS
        server.kill9()
        took = server.start()
        load.resumes(30)
        member.goes_on(40)
        acked, repeats = load.end()
        assert first_offsets(server.bootstrap, "log") == [0] * PARTITIONS
    finally:
        load.kill()
        member.close()
    print(f"{len(JUMPS)} jumps and a start ten years behind ({took:.2f} s): acknowledged {acked}, all there, repeats {repeats}")
