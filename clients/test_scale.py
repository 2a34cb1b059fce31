"""Size and speed of starting: an empty node, and one with 10,000 partitions after kill -9."""

import re
import subprocess

import pytest
from waiting import wait_until
from wire import Wire, batch

MIB = 1 << 20


def test_an_empty_node_is_small_and_quick(real_binary, make_server):
    took = []
    for _ in range(3):
        server = make_server()
        took.append(server.start())
        assert server.rss_bytes() < 40 * MIB, server.rss_bytes()
        server.stop()
    print(f"starts {took}")
    assert min(took) < 0.3, took


@pytest.mark.timeout(240)
def test_ten_thousand_partitions(real_binary, make_server, java, fresh):
    """Half in one hundred topics, half in one; a record in some, then kill -9: back in 3 s, below 200 MiB when idle."""
    server = make_server()
    server.start()
    wide = fresh("wide")
    java.admin(server.bootstrap, "create_topic", topic=wide, partitions=5000)
    names = [fresh("scale") for _ in range(100)]
    for name in names:
        java.admin(server.bootstrap, "create_topic", topic=name, partitions=50)
    with Wire(server.bootstrap, timeout=30) as wire:
        for partition in range(0, 5000, 50):
            assert wire.produce(wide, batch([b"x" * 100]), partition=partition)[:2] == (0, 0)
    server.kill9()
    took = server.start()
    rss = server.rss_bytes()
    print(f"start after kill -9 with 10,000 partitions {took:.2f} s, resident {rss / MIB:.0f} MiB")
    assert took < 3 and rss < 200 * MIB, (took, rss)
    assert len(java.admin(server.bootstrap, "describe_topic", topic=wide)["partitions"]) == 5000
    with Wire(server.bootstrap, timeout=30) as wire:
        assert wire.fetch(wide, partition=4950)[1] == 1
        assert wire.produce(names[-1], batch([b"y"]), partition=49)[:2] == (0, 0)
    assert server.rss_bytes() < 200 * MIB


def test_start_says_how_to_publish(real_binary, firth):
    """The banner holds a line that a user of kcat can type, with the address that was really taken."""
    wait_until(lambda: re.search(rf"kcat .*127\.0\.0\.1:{firth.port}", firth.said()), 5, lambda: f"banner in {firth.said()!r}")
    version = subprocess.run([real_binary, "--version"], capture_output=True, text=True, timeout=10).stdout
    assert re.match(r"firth \d+\.\d+\.\d+", version)
