"""Sessions that are cut off in the middle of an exchange: what their tests share."""

from mqtt import packets
from mqtt.link import Client

KEPT = {"clean": False, "props": {"session_expiry": 3600}}
SMALL = {"journal.extent_bytes": 4 << 20}


def again(server, level, name):
    """The same session from a new connection; the inbox is empty."""
    one = Client(server.mqtt_address, level, client_id=name, **KEPT)
    assert one.connack.session_present, f"session lost: {one.connack}"
    return one


def answer(one, packet, held):
    """Answers as a client does that holds these QoS 2 ids; returns the payload if it is new to its application."""
    if packet.kind == "PUBREL":
        held.discard(packet.packet_id)
        one.send(packets.ack("PUBCOMP", packet.packet_id))
        return None
    assert packet.kind == "PUBLISH", packet
    again = packet.qos == 2 and packet.packet_id in held
    assert packet.dup or not again, f"{packet} again without DUP"
    if packet.qos == 2:
        held.add(packet.packet_id)
    if packet.qos:
        one.send(packets.ack("PUBACK" if packet.qos == 1 else "PUBREC", packet.packet_id))
    return None if again else packet.payload
