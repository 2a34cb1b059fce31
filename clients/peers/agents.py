"""Clients of other languages: child processes that speak JSON lines."""

import itertools
import json
import queue
import subprocess
import threading

from .base import Member, Peer, PeerError, Record

_member_numbers = itertools.count(1)


class AgentPeer(Peer):
    """Drives `command`, which reads one JSON command a line and writes one JSON answer a line."""

    def __init__(self, name, command, env=None):
        self.name = name
        self.command = command
        self.env = env
        self.process = None
        self.lock = threading.Lock()

    def call(self, timeout=90, **command):
        with self.lock:
            if self.process is None or self.process.poll() is not None:
                self.start()
            self.process.stdin.write(json.dumps(command) + "\n")
            self.process.stdin.flush()
            try:
                line = self.answers.get(timeout=timeout)
            except queue.Empty:
                self.close()
                raise TimeoutError(f"{self.name} gave no answer to {command['do']} in {timeout} s") from None
        if line is None:
            raise PeerError("AgentEnded", f"{self.name} ended")
        answer = json.loads(line)
        if "error" in answer:
            raise PeerError(answer["error"], answer.get("message", ""))
        return answer["ok"]

    def start(self):
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=self.env
        )
        self.answers = queue.Queue()
        threading.Thread(target=self.listen, args=(self.process, self.answers), daemon=True).start()

    @staticmethod
    def listen(process, answers):
        for line in process.stdout:
            answers.put(line)
        answers.put(None)

    def close(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def produce(self, bootstrap, topic, records, codec="none", partition=0, **config):
        sent = self.call(
            do="produce",
            bootstrap=bootstrap,
            topic=topic,
            codec=codec,
            partition=partition,
            config=config,
            records=[record.to_json() for record in records],
        )
        for answer in sent:
            if "error" in answer:
                raise PeerError(answer["error"])
        return [answer["offset"] if answer["offset"] >= 0 else None for answer in sent]

    def consume(self, bootstrap, topics, partition=0, timeout=30, **config):
        got = self.call(do="consume", bootstrap=bootstrap, topics=topics, partition=partition, timeout=timeout, config=config, **{})
        return {topic: [Record.from_json(plain) for plain in plains] for topic, plains in got.items()}

    def join(self, bootstrap, group, topics, protocol="classic", instance=None, pattern=None, **config):
        return AgentMember(self, bootstrap, group, topics, self.member_config(protocol, instance, config), pattern)

    def admin(self, bootstrap, call, **arguments):
        return self.call(do="admin", bootstrap=bootstrap, call=call, **arguments)


class JavaPeer(AgentPeer):
    def member_config(self, protocol, instance, config):
        full = {"group.protocol": protocol, "client.id": "java", **config}
        if protocol == "classic":
            full = {"heartbeat.interval.ms": "500", "session.timeout.ms": "10000", **full}
        if instance is not None:
            full["group.instance.id"] = instance
        return full


class NodePeer(AgentPeer):
    lacks = frozenset({"null header values", "consumer protocol", "static members"})

    def member_config(self, protocol, instance, config):
        assert protocol == "classic" and instance is None, "kafkajs knows neither"
        return config


class AgentMember(Member):
    def __init__(self, peer, bootstrap, group, topics, config, pattern):
        self.peer = peer
        self.name = peer.name
        self.id = str(next(_member_numbers))
        self.last = None
        peer.call(do="join", member=self.id, bootstrap=bootstrap, group=group, topics=topics, pattern=pattern, config=config)

    def state(self):
        if self.last is not None:
            return self.last
        return self.read(self.peer.call(do="state", member=self.id))

    @staticmethod
    def read(state):
        state["records"] = [Record.from_json(plain) for plain in state["records"]]
        return state

    def leave(self, remain=False):
        if self.last is None:
            self.last = self.read(self.peer.call(do="leave", member=self.id, remain=remain))
