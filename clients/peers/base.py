"""What a record is to the tests, and what every foreign client can do."""

import base64
from dataclasses import dataclass, field

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")


class PeerError(Exception):
    """A client said no; `name` is the client's own word for it."""

    def __init__(self, name, message=""):
        super().__init__(f"{name}: {message}")
        self.name = name


@dataclass
class Record:
    """One record as a client writes or reads it; `headers` is a list of (name, bytes or None)."""

    key: bytes | None = None
    value: bytes | None = None
    headers: list = field(default_factory=list)
    timestamp: int | None = None
    offset: int | None = None
    partition: int | None = None
    timestamp_type: str | None = None

    def payload(self):
        """The part that must survive whichever client reads it: header order across different names is kafkajs's to lose."""
        grouped = {}
        for name, value in self.headers:
            grouped.setdefault(name, []).append(value)
        return self.key, self.value, grouped

    def to_json(self):
        return {
            "key": pack(self.key),
            "value": pack(self.value),
            "headers": [[name, pack(value)] for name, value in self.headers],
            "timestamp": self.timestamp,
        }

    @staticmethod
    def from_json(plain):
        return Record(
            key=unpack(plain["key"]),
            value=unpack(plain["value"]),
            headers=[(name, unpack(value)) for name, value in plain["headers"]],
            timestamp=plain["timestamp"],
            offset=plain["offset"],
            partition=plain["partition"],
            timestamp_type=plain.get("timestamp_type"),
        )


def pack(value):
    return None if value is None else base64.b64encode(value).decode()


def unpack(value):
    return None if value is None else base64.b64decode(value)


class Peer:
    """One foreign client. `lacks` names what its interface cannot express, so that a test writes only what the client can write."""

    name = "?"
    codecs = CODECS
    lacks = frozenset()

    def produce(self, bootstrap, topic, records, codec="none", partition=0, **config):
        """Writes the records and waits for their acknowledgement; returns the offsets, None where the client does not tell."""
        raise NotImplementedError

    def consume(self, bootstrap, topics, partition=0, timeout=30):
        """Reads `topics[name]` records of each topic from the beginning; returns lists by topic, shorter after `timeout` seconds."""
        raise NotImplementedError

    def join(self, bootstrap, group, topics, protocol="classic", instance=None, **config):
        """A group member that polls in the background."""
        raise NotImplementedError

    def close(self):
        pass


class Member:
    """A group member that polls and commits in the background; everything here may be read at any time."""

    name = "?"

    def state(self):
        """`assignment` ("topic-partition" texts, sorted), `events`, `records`, `member_id`, `generation`, `error`."""
        raise NotImplementedError

    def leave(self, remain=False):
        """Ends the member; with `remain` it says no goodbye, so that a static member keeps its place."""
        raise NotImplementedError

    @property
    def assignment(self):
        state = self.state()
        assert not state["error"], f"{self.name}: {state['error']}"
        return state["assignment"]

    @property
    def rebalances(self):
        return [event for event in self.state()["events"] if event[0] != "commit failed"]

    def values(self):
        return [record.value for record in self.state()["records"]]
