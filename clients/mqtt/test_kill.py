"""kill -9 of the broker at each step: what was answered is there, QoS 2 is neither lost nor doubled."""

import pytest

from mqtt.link import Client
from mqtt.marks import differs, v3, v5
from mqtt.packets import ack, publish

KEPT = {"clean": False, "props": {"session_expiry": 600}}
pytestmark = differs("mosquitto", "writes what it knows to the disk every half hour", run=False)


@pytest.fixture
def killed(own_broker, name):
    """A broker; sessions of it by a letter, resumed; and its sudden end, after which it runs again."""

    class Killed:
        def __init__(self):
            self.broker = own_broker()

        def session(self, letter, level=5):
            return Client(self.broker.mqtt_address, level, client_id=f"{name}{letter}", **KEPT)

        def kill(self):
            self.broker.kill9()
            self.broker.start()

    return Killed()


@pytest.mark.parametrize("step", ("PUBLISH", "PUBREC", "PUBREL", "PUBCOMP"))
@v5("4.3.3-10", "4.3.3-11", "4.4.0-1", "3.1.2-23")
@v3("4.3.3-2", "4.4.0-1", "3.1.2-4")
def test_to_the_broker(killed, topic, step):
    """Killed behind each packet of the four; the publisher goes on from there, as the standard tells it to."""
    killed.session("w").subscribe((topic, 2))
    one = killed.session("p")
    one.send(publish(topic, b"once", 2, 9))
    if step != "PUBLISH":
        one.expect("PUBREC", 9)
    if step in ("PUBREL", "PUBCOMP"):
        one.send(ack("PUBREL", 9))
    if step == "PUBCOMP":
        one.expect("PUBCOMP", 9)
    killed.kill()
    one, watcher = killed.session("p"), killed.session("w")
    assert one.connack.session_present and watcher.connack.session_present
    if step in ("PUBLISH", "PUBREC"):
        one.send(publish(topic, b"once", 2, 9, dup=True))
        one.expect("PUBREC", 9)
    one.send(ack("PUBREL", 9))
    one.expect("PUBCOMP", 9)
    assert watcher.receive().payload == b"once"
    watcher.nothing_but(killed.session("n"))


@pytest.mark.parametrize("step", ("PUBLISH", "PUBREL"))
@v5("4.3.3-5", "4.3.3-6", "4.4.0-1", "3.3.1-1", "3.1.2-23")
@v3("4.3.3-1", "4.4.0-1", "3.3.1-1")
def test_from_the_broker(killed, topic, step):
    """Killed with a PUBLISH unanswered it comes again with its identifier; behind PUBREC it is the PUBREL that does."""
    one = killed.session("s")
    one.subscribe((topic, 2))
    killed.session("p").publish(topic, b"once", 2)
    packet_id = one.receive(settle=False).packet_id
    if step == "PUBREL":
        one.send(ack("PUBREC", packet_id))
        one.expect("PUBREL", packet_id)
    killed.kill()
    one = killed.session("s")
    if step == "PUBLISH":
        again = one.next("PUBLISH")
        assert (again.packet_id, again.payload, again.dup) == (packet_id, b"once", True)
        one.send(ack("PUBREC", packet_id))
    one.next("PUBREL")
    one.send(ack("PUBCOMP", packet_id))
    one.nothing_but(killed.session("n"))


@v5("3.1.2-5", "3.1.2-23", "3.3.1-5", "4.5.0-1")
@v3("3.1.2-4", "3.1.2-5", "3.1.2-7", "4.5.0-1")
def test_what_was_answered_is_there(killed, level, topic):
    """A subscription, one taken back, messages for the absent, something retained and something removed."""
    one = killed.session("s", level)
    one.subscribe((f"{topic}/a", 1), (f"{topic}/b", 1))
    one.unsubscribe(f"{topic}/b")
    one.drop()
    publisher = killed.session("p", level)
    wanted = [b"%d" % at for at in range(20)]
    for payload in wanted:
        publisher.publish(f"{topic}/a", payload, 1)
        publisher.publish(f"{topic}/b", payload, 1)
    publisher.publish(f"{topic}/kept", b"kept", 1, retain=True)
    publisher.publish(f"{topic}/gone", b"kept", 1, retain=True)
    publisher.publish(f"{topic}/gone", b"", 1, retain=True)
    killed.kill()
    one = killed.session("s", level)
    assert one.connack.session_present
    assert one.payloads(20) == wanted
    one.subscribe((f"{topic}/kept", 1), (f"{topic}/gone", 1))
    assert one.receive().topic == f"{topic}/kept"
    one.nothing_but(killed.session("n", level))
