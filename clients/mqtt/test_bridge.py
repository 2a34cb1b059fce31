"""Another broker as a bridge, with its settings as they come: mosquitto passes messages on in both directions and says how it is."""

import os
import subprocess

import pytest
import server as servers
from conftest import had
from waiting import wait_until

from mqtt.link import Client

CONFIGURATION = """
listener {port} 127.0.0.1
allow_anonymous true
user root
connection {name}
address {broker}
bridge_protocol_version {version}
remote_clientid {name}
topic {topic}/# both 1
"""


@pytest.fixture
def bridge(broker, tmp_path, topic, name):
    """Starts mosquitto as a bridge; gives its address and its process."""
    had_it = had("mosquitto")
    made = []

    def make(version):
        port = servers.free_port()
        file = tmp_path / "bridge.conf"
        there = "{}:{}".format(*broker.address)
        file.write_text(CONFIGURATION.format(port=port, name=name, broker=there, version=version, topic=topic))
        environment = {**os.environ, "LD_LIBRARY_PATH": had_it["libraries"]}
        made.append(subprocess.Popen([had_it["broker"], "-c", str(file)], env=environment, preexec_fn=servers.end_with_parent))
        return ("127.0.0.1", port), made[-1]

    yield make
    for process in made:
        process.kill()
        process.wait(10)


@pytest.mark.parametrize("version", ("mqttv31", "mqttv311", "mqttv50"))
def test_messages_pass_in_both_directions(bridge, client, topic, name, version):
    state = f"$SYS/broker/connection/{name}/state"
    watcher = client()
    watcher.subscribe((state, 1))
    address, process = bridge(version)
    assert watcher.receive().payload == b"1"
    late = client()
    late.subscribe((state, 1))
    packet = late.receive()
    assert (packet.payload, packet.retain) == (b"1", 1)

    def listens():
        try:
            client(4, address).disconnect()
        except OSError:
            return False
        return True

    wait_until(listens, 10, "the bridge listens")
    here, there = client(), client(4, address)
    here.subscribe((f"{topic}/from/there", 1))
    there.subscribe((f"{topic}/from/here", 1))
    there.publish(f"{topic}/from/there", b"to you", 1)
    assert here.receive().payload == b"to you"
    here.publish(f"{topic}/from/here", b"to me", 1)
    assert there.receive().payload == b"to me"
    process.kill()
    assert watcher.receive().payload == b"0", "the bridge's will"
