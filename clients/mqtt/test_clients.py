"""Scenarios with foreign clients: paho, aiomqtt, mqtt.js, mosquitto_pub and mosquitto_sub, over TCP and WebSocket."""

import pytest
from conftest import had
from waiting import wait_until

from mqtt import foreign
from mqtt.marks import differs

MAKERS = {
    "paho-3.1": lambda: foreign.Paho(3),
    "paho-3.1.1": lambda: foreign.Paho(4),
    "paho-5": lambda: foreign.Paho(5),
    "paho-5-ws": lambda: foreign.Paho(5, "websockets"),
    "aiomqtt": foreign.Aiomqtt,
    "mqtt.js-3.1.1": lambda: foreign.MqttJs(had("kafkajs")["modules"], 4),
    "mqtt.js-5": lambda: foreign.MqttJs(had("kafkajs")["modules"], 5),
    "mqtt.js-5-ws": lambda: foreign.MqttJs(had("kafkajs")["modules"], 5, "ws"),
    "mosquitto-3.1.1": lambda: foreign.Mosquitto(had("mosquitto"), 4),
    "mosquitto-5": lambda: foreign.Mosquitto(had("mosquitto"), 5),
}
VERSION_5 = [name for name in MAKERS if "-3" not in name]
WINDOW = differs("mosquitto", "loses count of the window of QoS 2", always=False)
QOS = pytest.mark.parametrize("qos", (0, 1, 2))


@pytest.fixture(scope="module")
def makers():
    """Each client once for all scenarios."""
    made = {}

    def get(name):
        if name not in made:
            had("python")
            made[name] = MAKERS[name]()
        return made[name]

    yield get
    for peer in made.values():
        if hasattr(peer, "close"):
            peer.close()


@pytest.fixture
def open_session(broker, makers):
    """Opens a session of a client by its name; all are cut off at the end."""
    made = []

    def make(name, **options):
        address = broker.ws_address if name.endswith("-ws") else broker.address
        if address is None:
            pytest.skip("this broker has no WebSocket listener")
        made.append(makers(name).connect(address, **options))
        return made[-1]

    yield make
    for session in made:
        if not getattr(session, "over", False):
            session.end()


@pytest.fixture(params=MAKERS)
def session(request, open_session):
    """Opens sessions of one client after the other."""
    return lambda **options: open_session(request.param, **options)


def over(session, how):
    session.over = True
    getattr(session, how)()


@QOS
def test_publish_and_subscribe(session, topic, qos):
    subscriber, publisher = session(), session()
    subscriber.subscribe(f"{topic}/+", qos)
    publisher.publish(f"{topic}/a", b"payload", qos=2)
    assert subscriber.messages(1) == [(f"{topic}/a", b"payload", qos, False)]
    publisher.publish(f"{topic}/b", b"other", qos=qos)
    assert subscriber.messages(1) == [(f"{topic}/b", b"other", qos, False)]


@QOS
def test_retained(session, client, topic, qos):
    publisher = session()
    witness = client()
    witness.subscribe(f"{topic}/#")
    publisher.publish(topic, b"kept", qos=qos, retain=True)
    witness.receive()
    witness.retained_so_far()
    subscriber = session()
    subscriber.subscribe(topic, 2)
    assert subscriber.messages(1) == [(topic, b"kept", qos, True)]
    publisher.publish(topic, b"", qos=qos, retain=True)
    assert subscriber.messages(1) == [(topic, b"", qos, False)]
    witness.retained_so_far()
    later = session()
    later.subscribe(f"{topic}/#", 1)
    publisher.publish(f"{topic}/end", b"end", qos=1)
    assert later.messages(1) == [(f"{topic}/end", b"end", 1, False)]


@pytest.mark.parametrize("how", ("end", "kill"))
def test_persistent_session(session, topic, name, how):
    kept = {"client_id": name, "clean": False, "expiry": 60}
    subscriber, publisher = session(**kept), session()
    subscriber.subscribe(topic, 2)
    over(subscriber, how)
    for at in range(10):
        publisher.publish(topic, b"%d" % at, qos=1 + at % 2)
    subscriber = session(**kept)
    if isinstance(subscriber, foreign.MosquittoSession):
        subscriber.subscribe(topic, 2)
    came = subscriber.messages(10)
    # Clients hand QoS 2 over at PUBREL, so the order is told for each QoS.
    for qos in (1, 2):
        assert [payload for _, payload, each, _ in came if each == qos] == [b"%d" % at for at in range(qos - 1, 10, 2)]


@pytest.mark.parametrize("how", ("end", "kill"))
def test_will(session, client, topic, how):
    watcher = client()
    watcher.subscribe(f"{topic}/#")
    one = session(will=(f"{topic}/will", b"last words", 1, False))
    one.subscribe(f"{topic}/other", 0)
    over(one, how)
    if how == "kill" or getattr(one, "ends_with_will", False):
        assert watcher.receive().payload == b"last words"
    watcher.nothing_but(client())


@pytest.mark.parametrize("who", VERSION_5)
def test_shared_subscription(open_session, topic, who):
    members = [open_session(who), open_session(who)]
    for member in members:
        member.subscribe(f"$share/group/{topic}", 1)
    publisher = open_session(who)
    wanted = [b"%d" % at for at in range(20)]
    publisher.publish(topic, *wanted, qos=1)
    came = []

    def all_came():
        for member in members:
            came.extend(payload for _, payload, _, _ in member.drain())
        return len(came) >= len(wanted)

    wait_until(all_came, 10, lambda: f"twenty messages for two members; {came} came")
    assert sorted(came) == sorted(wanted)


@QOS
def test_large_payload(session, topic, qos):
    subscriber, publisher = session(), session()
    subscriber.subscribe(topic, 2)
    payload = bytes(range(256)) * 4096
    publisher.publish(topic, payload, qos=qos)
    assert subscriber.messages(1) == [(topic, payload, qos, False)]


@pytest.mark.parametrize("qos", (0, 1, pytest.param(2, marks=WINDOW)))
def test_a_thousand_in_order(session, topic, qos):
    subscriber, publisher = session(), session()
    subscriber.subscribe(topic, qos)
    wanted = [b"message %d" % at for at in range(1000)]
    publisher.publish(topic, *wanted, qos=qos)
    assert [payload for _, payload, _, _ in subscriber.messages(1000)] == wanted


def test_the_filters_every_user_tries(session, topic):
    """The examples of orders with the sets they are to give."""
    tail = "1.1/icecream/udders/rumraisin/sg/lazada"
    wanted = {
        f"{topic}/order/init/1.1/#": ["init"],
        f"{topic}/order/valid/+/icecream/+/+/sg/+": ["valid"],
        f"{topic}/order/#": ["init", "valid", "shipped"],
    }
    sessions = {}
    for filter in wanted:
        sessions[filter] = session()
        sessions[filter].subscribe(filter, 1)
    publisher = session()
    for state in ("init", "valid", "shipped"):
        publisher.publish(f"{topic}/order/{state}/{tail}", state.encode(), qos=1)
    end = f"{topic}/order/init/1.1/end", f"{topic}/order/valid/x/icecream/x/x/sg/end"
    for each in end:
        publisher.publish(each, b"end", qos=1)
    for filter, states in wanted.items():
        ends = 2 if filter.endswith("order/#") else 1
        came = [payload.decode() for _, payload, _, _ in sessions[filter].messages(len(states) + ends)]
        assert came == states + ["end"] * ends


def test_every_client_hears_every_other(open_session, broker, topic):
    names = [name for name in MAKERS if broker.ws_address or not name.endswith("-ws")]
    listening = {name: open_session(name) for name in names}
    for name in names:
        listening[name].subscribe(f"{topic}/+", 1)
    for name in names:
        open_session(name).publish(f"{topic}/{name}", name.encode(), qos=1)
    wanted = [(f"{topic}/{name}", name.encode(), 1, False) for name in names]
    for name in names:
        assert listening[name].messages(len(names)) == wanted
