"""MQTT packets by hand: any packet of 3.1, 3.1.1 and 5.0 as bytes, broken ones too, and what a server sends as fields.

Nothing here refuses to build a wrong packet; what is read from a server is held to the standard, so a server's fault shows as `Broken`.
Levels are those on the wire: 3 is MQTT 3.1, 4 is 3.1.1, 5 is 5.0.
"""

from dataclasses import dataclass, field

NAMES = {
    1: "CONNECT",
    2: "CONNACK",
    3: "PUBLISH",
    4: "PUBACK",
    5: "PUBREC",
    6: "PUBREL",
    7: "PUBCOMP",
    8: "SUBSCRIBE",
    9: "SUBACK",
    10: "UNSUBSCRIBE",
    11: "UNSUBACK",
    12: "PINGREQ",
    13: "PINGRESP",
    14: "DISCONNECT",
    15: "AUTH",
}
TYPES = {name: number for number, name in NAMES.items()}
# Section 2.2.2.2 of 5.0: identifier, kind of value, packets a server may send it in.
PROPERTIES = {
    "payload_format": (0x01, "byte", {"PUBLISH"}),
    "message_expiry": (0x02, "four", {"PUBLISH"}),
    "content_type": (0x03, "text", {"PUBLISH"}),
    "response_topic": (0x08, "text", {"PUBLISH"}),
    "correlation_data": (0x09, "binary", {"PUBLISH"}),
    "subscription_id": (0x0B, "number", {"PUBLISH"}),
    "session_expiry": (0x11, "four", {"CONNACK"}),
    "assigned_client_id": (0x12, "text", {"CONNACK"}),
    "server_keep_alive": (0x13, "two", {"CONNACK"}),
    "auth_method": (0x15, "text", {"CONNACK", "AUTH"}),
    "auth_data": (0x16, "binary", {"CONNACK", "AUTH"}),
    "request_problem": (0x17, "byte", set()),
    "will_delay": (0x18, "four", set()),
    "request_response": (0x19, "byte", set()),
    "response_information": (0x1A, "text", {"CONNACK"}),
    "server_reference": (0x1C, "text", {"CONNACK", "DISCONNECT"}),
    "reason_string": (0x1F, "text", {"CONNACK", "PUBACK", "PUBREC", "PUBREL", "PUBCOMP", "SUBACK", "UNSUBACK", "DISCONNECT", "AUTH"}),
    "receive_maximum": (0x21, "two", {"CONNACK"}),
    "topic_alias_maximum": (0x22, "two", {"CONNACK"}),
    "topic_alias": (0x23, "two", {"PUBLISH"}),
    "maximum_qos": (0x24, "byte", {"CONNACK"}),
    "retain_available": (0x25, "byte", {"CONNACK"}),
    "user": (
        0x26,
        "pair",
        {"CONNACK", "PUBLISH", "PUBACK", "PUBREC", "PUBREL", "PUBCOMP", "SUBACK", "UNSUBACK", "DISCONNECT", "AUTH"},
    ),
    "maximum_packet_size": (0x27, "four", {"CONNACK"}),
    "wildcard_available": (0x28, "byte", {"CONNACK"}),
    "subscription_id_available": (0x29, "byte", {"CONNACK"}),
    "shared_available": (0x2A, "byte", {"CONNACK"}),
}
BY_NUMBER = {number: (name, kind, places) for name, (number, kind, places) in PROPERTIES.items()}
MANY = {"user", "subscription_id"}
# Reason codes a server may use, by packet: sections 3.2.2.2 to 3.15.2.1 of 5.0.
REASONS = {
    "CONNACK": {0, *range(0x80, 0x8B), 0x8C, 0x90, 0x95, 0x97, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9F},
    "PUBACK": {0, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99},
    "PUBREC": {0, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99},
    "PUBREL": {0, 0x92},
    "PUBCOMP": {0, 0x92},
    "SUBACK": {0, 1, 2, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2},
    "UNSUBACK": {0, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91},
    "DISCONNECT": {
        *(0, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8D, 0x8E, 0x8F),
        *(0x90, *range(0x93, 0xA3)),
    },
    "AUTH": {0, 0x18},
}
RETURN_CODES = {"CONNACK": {0, 1, 2, 3, 4, 5}, "SUBACK": {0, 1, 2, 0x80}}


class Broken(AssertionError):
    """The server sent what the standard does not allow."""


def two(value):
    return value.to_bytes(2, "big")


def four(value):
    return value.to_bytes(4, "big")


def number(value, width=0):
    """A variable byte integer; `width` bytes of it, more than it needs, make a malformed one."""
    out = bytearray()
    while True:
        value, digit = value >> 7, value & 0x7F
        more = value > 0 or len(out) + 1 < width
        out.append(digit | (0x80 if more else 0))
        if not more:
            return bytes(out)


def binary(value):
    return two(len(value)) + value


def text(value):
    """A string, or the bytes of one, good or not."""
    return binary(value if isinstance(value, bytes) else value.encode())


def one_property(name, value):
    if isinstance(name, int):  # a number of the test's own, with the bytes that follow it
        return bytes([name]) + value
    identifier, kind, _ = PROPERTIES[name]
    encoded = {
        "byte": lambda: bytes([value]),
        "two": lambda: two(value),
        "four": lambda: four(value),
        "number": lambda: number(value),
        "text": lambda: text(value),
        "binary": lambda: binary(value),
        "pair": lambda: text(value[0]) + text(value[1]),
    }[kind]()
    return number(identifier) + encoded


def properties(values=None):
    """With its length in front. A dictionary, where a list stands for a property that is there several times; or the bytes themselves."""
    if isinstance(values, bytes):
        return number(len(values)) + values
    body = b""
    for name, value in (values or {}).items():
        for each in value if isinstance(value, list) else [value]:
            body += one_property(name, each)
    return number(len(body)) + body


def packet(kind, flags, body=b"", width=0):
    """Any packet: a type by name or number, four bits, and the rest."""
    first = (TYPES[kind] if isinstance(kind, str) else kind) << 4 | flags
    return bytes([first]) + number(len(body), width) + body


@dataclass
class Will:
    topic: object
    payload: bytes = b"gone"
    qos: int = 0
    retain: bool = False
    props: dict = None

    def bits(self):
        return 0x04 | self.qos << 3 | (0x20 if self.retain else 0)


def connect(client_id="", level=5, clean=True, keep_alive=60, will=None, user=None, password=None, props=None, **broken):
    """`broken`: name, flags (the connect flags themselves), bits (of the fixed header), tail (bytes behind the payload)."""
    name = broken.get("name", "MQIsdp" if level == 3 else "MQTT")
    flags = (0x02 if clean else 0) | (will.bits() if will else 0)
    flags |= (0x80 if user is not None else 0) | (0x40 if password is not None else 0)
    body = text(name) + bytes([level, broken.get("flags", flags)]) + two(keep_alive)
    if level & 0x7F == 5:
        body += properties(props)
    body += text(client_id)
    if will:
        body += (properties(will.props) if level & 0x7F == 5 else b"") + text(will.topic) + binary(will.payload)
    body += b"" if user is None else text(user)
    body += b"" if password is None else binary(password)
    return packet("CONNECT", broken.get("bits", 0), body + broken.get("tail", b""))


def publish(topic, payload=b"", qos=0, packet_id=None, retain=False, dup=False, level=5, props=None):
    body = text(topic) + (two(packet_id) if packet_id is not None else b"")
    body += properties(props) if level == 5 else b""
    return packet("PUBLISH", (8 if dup else 0) | qos << 1 | (1 if retain else 0), body + payload)


def ack(kind, packet_id, reason=None, props=None, bits=None):
    """PUBACK, PUBREC, PUBREL, PUBCOMP; short where neither reason nor properties are asked for, as 5.0 allows."""
    body = two(packet_id)
    if reason is not None or props is not None:
        body += bytes([reason or 0]) + (properties(props) if props is not None else b"")
    return packet(kind, bits if bits is not None else (2 if kind == "PUBREL" else 0), body)


def subscribe(packet_id, filters, level=5, props=None, bits=2):
    """`filters`: pairs of a filter and its options byte."""
    body = two(packet_id) + (properties(props) if level == 5 else b"")
    return packet("SUBSCRIBE", bits, body + b"".join(text(name) + bytes([options]) for name, options in filters))


def unsubscribe(packet_id, filters, level=5, props=None, bits=2):
    body = two(packet_id) + (properties(props) if level == 5 else b"")
    return packet("UNSUBSCRIBE", bits, body + b"".join(text(name) for name in filters))


def disconnect(reason=None, props=None, bits=0):
    body = b"" if reason is None else bytes([reason])
    return packet("DISCONNECT", bits, body + (properties(props) if props is not None else b""))


def auth(reason=None, props=None, bits=0):
    body = b"" if reason is None else bytes([reason])
    return packet("AUTH", bits, body + (properties(props) if props is not None else b""))


PINGREQ = packet("PINGREQ", 0)


@dataclass
class Packet:
    """A packet of a server. Fields that its kind does not have stay as they are here."""

    kind: str
    flags: int
    raw: bytes
    packet_id: int = None
    reason: int = 0
    reasons: list = field(default_factory=list)
    session_present: bool = False
    topic: str = None
    payload: bytes = b""
    qos: int = 0
    retain: bool = False
    dup: bool = False
    props: dict = field(default_factory=dict)


class Reader:
    """Walks the body of one packet; running over its end is the server's fault."""

    def __init__(self, body):
        self.body = body
        self.at = 0

    def take(self, count):
        if self.at + count > len(self.body):
            raise Broken(f"{count} bytes wanted at {self.at} of {self.body!r}")
        self.at += count
        return self.body[self.at - count : self.at]

    def left(self):
        return len(self.body) - self.at

    def byte(self):
        return self.take(1)[0]

    def two(self):
        return int.from_bytes(self.take(2), "big")

    def four(self):
        return int.from_bytes(self.take(4), "big")

    def number(self):
        value, shift = 0, 0
        while True:
            digit = self.byte()
            value |= (digit & 0x7F) << shift
            shift += 7
            if not digit & 0x80:
                if digit == 0 and shift > 7:
                    raise Broken("a variable byte integer that is longer than needed")
                return value
            if shift == 28:
                raise Broken("a variable byte integer of more than four bytes")

    def binary(self):
        return self.take(self.two())

    def text(self):
        try:
            value = self.binary().decode()
        except UnicodeDecodeError as fault:
            raise Broken(f"text that is not UTF-8: {fault}") from None
        if "\0" in value:
            raise Broken("U+0000 in text")
        return value

    def pair(self):
        return self.text(), self.text()

    def properties(self, kind):
        inner = Reader(self.take(self.number()))
        values = {}
        while inner.left():
            identifier = inner.number()
            if identifier not in BY_NUMBER:
                raise Broken(f"property {identifier:#x} is not one")
            name, how, places = BY_NUMBER[identifier]
            if kind not in places:
                raise Broken(f"property {name} in {kind}")
            value = getattr(inner, how)()
            if name in MANY:
                values.setdefault(name, []).append(value)
            elif name in values:
                raise Broken(f"property {name} twice")
            else:
                values[name] = value
        return values


def decode(first, body, level):
    """One packet of a server, held to what its level allows."""
    kind = NAMES.get(first >> 4)
    if kind in (None, "CONNECT", "SUBSCRIBE", "UNSUBSCRIBE", "PINGREQ") or (level < 5 and kind in ("DISCONNECT", "AUTH")):
        raise Broken(f"a server does not send {kind} ({first:#x})")
    out = Packet(kind, first & 0x0F, bytes([first]) + number(len(body)) + body)
    if kind != "PUBLISH" and out.flags != (2 if kind == "PUBREL" else 0):
        raise Broken(f"{kind} with flags {out.flags:#x}")
    reader = Reader(body)
    if kind == "PUBLISH":
        decode_publish(out, reader, level)
    elif kind == "CONNACK":
        flags = reader.byte()
        out.session_present, out.reason = flags == 1, reader.byte()
        if flags > 1:
            raise Broken(f"CONNACK with acknowledge flags {flags:#x}")
        out.props = reader.properties(kind) if level == 5 else {}
    elif kind in ("SUBACK", "UNSUBACK"):
        out.packet_id = reader.two()
        out.props = reader.properties(kind) if level == 5 else {}
        out.reasons = list(reader.take(reader.left()))
    elif kind != "PINGRESP":
        if kind not in ("DISCONNECT", "AUTH"):
            out.packet_id = reader.two()
        if level == 5 and reader.left():
            out.reason = reader.byte()
        if level == 5 and reader.left():
            out.props = reader.properties(kind)
    if reader.left():
        raise Broken(f"{reader.left()} bytes behind the end of {kind}")
    allowed = (REASONS if level == 5 else RETURN_CODES).get(kind, {0})
    for reason in [out.reason, *out.reasons]:
        if kind not in ("PUBLISH", "PINGRESP") and reason not in allowed and not (level < 5 and kind == "UNSUBACK"):
            raise Broken(f"{kind} with reason {reason:#x}")
    return out


def decode_publish(out, reader, level):
    out.dup, out.qos, out.retain = bool(out.flags & 8), out.flags >> 1 & 3, bool(out.flags & 1)
    if out.qos == 3:
        raise Broken("PUBLISH at QoS 3")
    if out.dup and out.qos == 0:
        raise Broken("PUBLISH at QoS 0 with DUP")
    out.topic = reader.text()
    if "+" in out.topic or "#" in out.topic:
        raise Broken(f"PUBLISH to {out.topic!r}")
    if out.qos:
        out.packet_id = reader.two()
        if out.packet_id == 0:
            raise Broken("PUBLISH with packet identifier 0")
    out.props = reader.properties("PUBLISH") if level == 5 else {}
    if out.props.get("topic_alias") == 0:
        raise Broken("topic alias 0")
    out.payload = reader.take(reader.left())
