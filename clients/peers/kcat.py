"""kcat from Debian: an older librdkafka, driven by its command line."""

import json
import subprocess

from .base import Peer, PeerError, Record


class KcatPeer(Peer):
    name = "kcat"
    # A run of kcat puts the same headers on all it sends, so each record is a run of its own; it cannot choose a timestamp.
    lacks = frozenset({"timestamps", "binary", "members"})

    def __init__(self, command, env):
        self.command = command
        self.env = env

    def run(self, arguments, stdin=b"", timeout=60):
        done = subprocess.run([self.command, *arguments], input=stdin, capture_output=True, env=self.env, timeout=timeout)
        if done.returncode != 0:
            raise PeerError("kcat", done.stderr.decode())
        return done.stdout

    def produce(self, bootstrap, topic, records, codec="none", partition=0, **config):
        settings = [part for name, value in config.items() for part in ("-X", f"{name}={value}")]
        for record in records:
            headers = []
            for name, value in record.headers:
                headers += ["-H", name if value is None else f"{name}={value.decode()}"]
            arguments = ["-P", "-b", bootstrap, "-t", topic, "-z", codec, *settings, *headers, "-Z", "-X", "linger.ms=0"]
            if partition is not None:
                arguments += ["-p", str(partition)]
            message = record.value or b""
            if record.key is not None:
                arguments += ["-K", "\\x02"]
                message = record.key + b"\x02" + message
            # -D with a byte that no record holds: the whole of stdin is one message, and an empty value is null
            self.run([*arguments, "-D", "\\x01"], message + b"\x01")
        return [None] * len(records)

    def consume(self, bootstrap, topics, partition=0, timeout=30):
        got = {}
        for topic, count in topics.items():
            if count == 0:
                got[topic] = []
                continue
            out = self.run(
                ["-C", "-b", bootstrap, "-t", topic, "-p", str(partition), "-o", "beginning", "-c", str(count), "-J", "-q"], timeout=timeout
            )
            got[topic] = [self.record(json.loads(line.decode(errors="replace"))) for line in out.splitlines()]
        return got

    @staticmethod
    def record(plain):
        flat = plain.get("headers", [])
        pairs = list(zip(flat[::2], flat[1::2]))
        return Record(
            key=None if plain["key"] is None else plain["key"].encode(),
            value=None if plain["payload"] is None else plain["payload"].encode(),
            headers=[(name, None if value is None else value.encode()) for name, value in pairs],
            timestamp=plain["ts"],
            offset=plain["offset"],
            partition=plain["partition"],
            timestamp_type=plain["tstype"],
        )
