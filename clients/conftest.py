"""Fixtures: the server under test and the foreign clients that were had."""

import json
import os
import random
import sys
import uuid
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import server as servers  # noqa: E402

HAVE = Path(os.environ.get("FIRTH_CLIENTS", servers.ROOT / "target/clients"))


def had(name):
    """What the set-up found for `name`: a dictionary, or a skip with the reason it gave."""
    file = HAVE / "have.json"
    if not file.exists():
        pytest.fail(f"{file} is not there: run `cargo xtask clients`")
    have = json.loads(file.read_text())
    if name in have.get("missing", {}):
        pytest.skip(f"{name}: {have['missing'][name]}")
    return have[name]


def make_peer(name):
    from peers.agents import JavaPeer, NodePeer
    from peers.kcat import KcatPeer
    from peers.librdkafka import LibrdkafkaPeer
    from peers.pythons import AiokafkaPeer, KafkaPythonPeer

    if name == "kcat":
        kcat = had("kcat")
        return KcatPeer(kcat["command"], {**os.environ, "LD_LIBRARY_PATH": kcat["libraries"]})
    if name == "kafkajs":
        return NodePeer(
            name, ["node", str(Path(__file__).parent / "node/agent.js")], {**os.environ, "NODE_PATH": had("kafkajs")["modules"]}
        )
    if name == "java":
        options = ["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        return JavaPeer(name, ["java", *options, "-cp", had("java")["classpath"], "Agent"])
    had("python")
    return {"confluent-kafka": LibrdkafkaPeer, "kafka-python": KafkaPythonPeer, "aiokafka": AiokafkaPeer}[name]()


PEERS = ("kcat", "confluent-kafka", "kafka-python", "aiokafka", "kafkajs", "java")


@pytest.fixture(scope="session")
def peers():
    """Gives a client by name, or skips the test when it could not be had."""
    made = {}

    def get(name):
        if name not in made:
            made[name] = make_peer(name)
        return made[name]

    yield get
    for peer in made.values():
        peer.close()


@pytest.fixture(scope="session")
def java(peers):
    return peers("java")


@pytest.fixture(scope="session")
def node(tmp_path_factory):
    """One server that many tests share, so they name their topics with `fresh`; another broker when the environment names one."""
    if servers.PEER_BOOTSTRAP:
        yield servers.Elsewhere(servers.PEER_BOOTSTRAP)
        return
    shared = servers.Server(tmp_path_factory.mktemp("node"))
    shared.start()
    yield shared
    said = shared.said()
    shared.stop()
    assert "panicked" not in said, said


@pytest.fixture
def make_server(tmp_path):
    """Makes servers of this test's own; all are gone when the test ends."""
    if servers.PEER_BOOTSTRAP and not servers.PEER_COMMAND:
        pytest.skip("a broker that the tests may stop is needed, and FIRTH_PEER_BOOTSTRAP names one that they may not")
    made = []

    def make(**arguments):
        made.append(servers.Server(tmp_path / f"server{len(made)}", **arguments))
        return made[-1]

    yield make
    for one in made:
        one.kill9()


@pytest.fixture
def firth(make_server):
    """A running server of this test's own: restart(), kill9(), stop()."""
    one = make_server()
    one.start()
    return one


@pytest.fixture
def real_binary():
    """For tests that look at the process itself and so make no sense with another broker."""
    if servers.PEER_BOOTSTRAP or servers.PEER_COMMAND:
        pytest.skip("looks at the Firth binary itself")
    return servers.BINARY


@pytest.fixture
def seed():
    """Chance comes from here; printed, so that a failure can be run again with FIRTH_SEED."""
    value = int(os.environ.get("FIRTH_SEED", random.SystemRandom().randrange(1 << 32)))
    print(f"seed: FIRTH_SEED={value}")
    return value


@pytest.fixture
def fresh():
    """A name nobody else uses."""
    return lambda what="topic": f"{what}-{uuid.uuid4().hex[:12]}"
