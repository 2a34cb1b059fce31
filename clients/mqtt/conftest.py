"""Fixtures of the MQTT tests: a broker that many share, clients that are gone when the test ends, names nobody else uses."""

import os
import uuid

import pytest
import server as servers

from mqtt import link

PEER = os.environ.get("FIRTH_MQTT_PEER")
PEER_NAME = os.environ.get("FIRTH_MQTT_PEER_NAME", "mosquitto") if PEER or servers.MQTT_PEER_COMMAND else None


def pytest_configure(config):
    for line in (
        "v5(statements): normative statements of MQTT 5.0 that the test is for",
        "v3(statements): normative statements of MQTT 3.1.1 that the test is for",
        "differs(who, why, level, always, run): another broker that is expected to fail the test",
    ):
        config.addinivalue_line("markers", line)


def pytest_collection_modifyitems(items):
    for item in items:
        params = getattr(item, "callspec", None)
        for mark in item.iter_markers("differs"):
            who, why = mark.args
            level = mark.kwargs["level"]
            if who == PEER_NAME and level in (None, params and params.params.get("level")):
                item.add_marker(pytest.mark.xfail(reason=why, strict=mark.kwargs["always"], run=mark.kwargs["run"]))


def host_and_port(text):
    host, port = text.rsplit(":", 1)
    return host, int(port)


class Broker:
    """Where the broker listens: `address`, and `ws_address` or None."""

    def __init__(self, address, ws_address):
        self.address = address
        self.ws_address = ws_address


@pytest.fixture(scope="session")
def broker(tmp_path_factory):
    """One broker that all tests share."""
    if PEER:
        ws_address = os.environ.get("FIRTH_MQTT_PEER_WS")
        yield Broker(host_and_port(PEER), ws_address and host_and_port(ws_address))
        return
    shared = servers.Server(tmp_path_factory.mktemp("mqtt"), mqtt=True)
    shared.start()
    yield Broker(shared.mqtt_address, shared.mqtt_ws_address)
    said = shared.said()
    shared.stop()
    assert "panicked" not in said, said


@pytest.fixture
def ws_broker(broker):
    if broker.ws_address is None:
        pytest.skip("this broker has no WebSocket listener")
    return broker


@pytest.fixture
def own_broker(tmp_path):
    """Makes a broker of this test's own, which it may stop and start again."""
    if PEER:
        pytest.skip("a broker that the tests may stop is needed, and FIRTH_MQTT_PEER names one that they may not")
    made = []

    def make(**arguments):
        made.append(servers.Server(tmp_path / f"mqtt{len(made)}", mqtt=True, **arguments))
        made[-1].start()
        return made[-1]

    yield make
    for one in made:
        one.kill9()


@pytest.fixture
def raw(broker):
    """Opens connections on which nothing was sent yet."""
    made = []

    def make(level=5, address=None):
        made.append(link.Link(address or broker.address, level))
        return made[-1]

    yield make
    for one in made:
        one.socket.close()


@pytest.fixture
def client(broker):
    """Connects clients: client(level, client_id=..., clean=..., will=..., props=...); persistent sessions are removed at the end."""
    made = []

    def make(level=5, address=None, **options):
        made.append((address or broker.address, link.Client(address or broker.address, level, **options), options))
        return made[-1][1]

    yield make
    kept = {}
    for address, one, options in made:
        one.socket.close()
        if options.get("client_id") and address == broker.address and (options.get("clean") is False or options.get("props")):
            kept[one.client_id] = one.level
    for client_id, level in kept.items():
        link.Client(broker.address, level, client_id=client_id).disconnect()


@pytest.fixture(params=(4, 5))
def level(request):
    """3.1.1 and 5.0."""
    return request.param


@pytest.fixture(name="topic")
def topic_of_its_own():
    return f"t{uuid.uuid4().hex[:12]}"


@pytest.fixture(name="name")
def client_id_of_its_own():
    return f"c{uuid.uuid4().hex[:12]}"


@pytest.fixture(params=("server", "client"))
def cut(request):
    """Ends a client's connection as if by a crash: the whole server's, which starts again, or the client's own."""
    if request.param == "server" and servers.MQTT_PEER_COMMAND:
        pytest.skip("the other broker saves its sessions now and then")

    def by_server(server, one):
        server.kill9()
        one.drop()
        server.start()

    return by_server if request.param == "server" else lambda server, one: one.drop()
