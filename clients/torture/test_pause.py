"""The process is stopped for a while, as a virtual machine may be: nothing is lost, and groups find each other again."""

import os
import signal
import time

import pytest
from load import Load
from member import Member
from publisher import PARTITIONS

SECONDS = float(os.environ.get("FIRTH_PAUSE_SECONDS", "3"))
PAUSES = int(os.environ.get("FIRTH_PAUSES", "1"))


@pytest.mark.timeout(120 + PAUSES * (60 + 2 * SECONDS))
def test_a_stopped_process_goes_on_where_it_was(make_server, java, tmp_path):
    server = make_server()
    server.start()
    java.admin(server.bootstrap, "create_topic", topic="log", partitions=PARTITIONS)
    load = Load(server.bootstrap, "log", tmp_path)
    member = Member(server.bootstrap, "log", "followers")
    slowest = 0.0
    try:
        for _ in range(PAUSES):
            load.resumes(30)
            member.goes_on(30)
            os.kill(server.pid, signal.SIGSTOP)
            time.sleep(SECONDS)  # the pause is the drill
            os.kill(server.pid, signal.SIGCONT)
            began = time.monotonic()
            load.resumes(30)
            member.goes_on(30)
            slowest = max(slowest, time.monotonic() - began)
        acked, repeats = load.end()
    finally:
        load.kill()
        member.close()
    print(f"{PAUSES} pauses of {SECONDS:.0f} s: everybody went on within {slowest:.2f} s; acknowledged {acked}, all there, repeats {repeats}")
