"""Foreign MQTT clients behind one face, so that a scenario is written once.

A peer connects sessions; a session subscribes, publishes, gives the messages that came as (topic, payload, qos, retain), says goodbye
(`end`) or is cut off (`kill`). Each call returns when the broker has answered it.
"""

import asyncio
import base64
import itertools
import json
import os
import queue
import socket
import subprocess
import threading
import uuid
from pathlib import Path

SECONDS = 20
NODE_AGENT = Path(__file__).resolve().parents[1] / "node/mqtt_agent.js"


def in_time(event, what):
    assert event.wait(SECONDS), f"no {what} in time"


class Inbox:
    """Messages in the order in which they came."""

    def __init__(self):
        self.queue = queue.Queue()

    def messages(self, count, seconds=SECONDS):
        try:
            return [self.queue.get(timeout=seconds) for _ in range(count)]
        except queue.Empty:
            raise AssertionError(f"{count} messages expected, not all came") from None

    def drain(self):
        """What is here now."""
        return [self.queue.get_nowait() for _ in range(self.queue.qsize())]


class Paho:
    """paho-mqtt; over TCP or WebSocket."""

    def __init__(self, level, transport="tcp"):
        self.level, self.transport = level, transport

    def connect(self, address, **options):
        return PahoSession(self, address, **options)


class PahoSession(Inbox):
    def __init__(self, peer, address, client_id=None, clean=True, expiry=0, will=None):
        import paho.mqtt.client as paho
        from paho.mqtt.packettypes import PacketTypes
        from paho.mqtt.properties import Properties

        super().__init__()
        kept = {} if peer.level == 5 else {"clean_session": clean}
        identifier = client_id or f"paho{uuid.uuid4().hex[:12]}"
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2, identifier, protocol=peer.level, transport=peer.transport, **kept)
        if peer.transport == "websockets":
            self.client.ws_set_options(path="/mqtt")
        if will:
            self.client.will_set(*will)
        self.connected, self.done = threading.Event(), {}
        self.client.on_connect = self.on_connect
        self.client.on_message = lambda _client, _data, message: self.queue.put(
            (message.topic, message.payload, message.qos, bool(message.retain))
        )
        self.client.on_subscribe = lambda _client, _data, mid, reasons, _props: self.answered(mid, reasons)
        self.client.on_unsubscribe = lambda _client, _data, mid, reasons, _props: self.answered(mid, reasons)
        if peer.level == 5:
            props = Properties(PacketTypes.CONNECT)
            props.SessionExpiryInterval = expiry
            self.client.connect(*address, clean_start=clean, properties=props)
        else:
            self.client.connect(*address)
        self.client.loop_start()
        in_time(self.connected, "CONNACK")

    def on_connect(self, _client, _data, flags, reason, _props):
        assert not reason.is_failure, reason
        self.present = flags.session_present
        self.connected.set()

    def answered(self, mid, reasons):
        event, held = self.done.setdefault(mid, (threading.Event(), []))
        held.extend(reasons)
        event.set()

    def wait(self, mid, what):
        event, reasons = self.done.setdefault(mid, (threading.Event(), []))
        in_time(event, what)
        assert not any(reason.is_failure for reason in reasons), reasons

    def subscribe(self, filter, qos):
        self.wait(self.client.subscribe(filter, qos)[1], "SUBACK")

    def publish(self, topic, *payloads, qos=0, retain=False):
        for sent in [self.client.publish(topic, payload, qos, retain) for payload in payloads]:
            sent.wait_for_publish(SECONDS)
            assert sent.is_published()

    def end(self):
        self.client.disconnect()
        self.client.loop_stop()

    def kill(self):
        # Ends its thread before the socket goes: it would connect again.
        self.client._thread_terminate = True
        self.client._sock.close()
        self.client.loop_stop()


class Aiomqtt:
    """aiomqtt, its event loop in a thread of its own."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()

    def run(self, what):
        return asyncio.run_coroutine_threadsafe(what, self.loop).result(SECONDS)

    def connect(self, address, **options):
        return AiomqttSession(self, address, **options)


class AiomqttSession(Inbox):
    def __init__(self, peer, address, client_id=None, clean=True, expiry=0, will=None):
        import aiomqtt
        from paho.mqtt.packettypes import PacketTypes
        from paho.mqtt.properties import Properties

        super().__init__()
        self.peer = peer
        props = Properties(PacketTypes.CONNECT)
        props.SessionExpiryInterval = expiry

        async def make():
            return aiomqtt.Client(
                address[0],
                address[1],
                identifier=client_id,
                protocol=aiomqtt.ProtocolVersion.V5,
                clean_start=clean,
                properties=props,
                will=will and aiomqtt.Will(*will),
                timeout=SECONDS,
            )

        self.client = peer.run(make())
        self.peer.run(self.client.__aenter__())
        self.reader = asyncio.run_coroutine_threadsafe(self.read(aiomqtt.MqttError), peer.loop)

    async def read(self, ended):
        try:
            async for message in self.client.messages:
                self.queue.put((str(message.topic), bytes(message.payload), message.qos, bool(message.retain)))
        except ended:
            pass  # the connection was cut off or is over

    def subscribe(self, filter, qos):
        reasons = self.peer.run(self.client.subscribe(filter, qos))
        assert not any(reason.is_failure for reason in reasons), reasons

    def publish(self, topic, *payloads, qos=0, retain=False):
        async def all_of_them():
            for payload in payloads:
                await self.client.publish(topic, payload, qos, retain)

        self.peer.run(all_of_them())

    def end(self):
        self.peer.run(self.client.__aexit__(None, None, None))
        self.reader.cancel()

    def kill(self):
        async def cut():
            self.client._client._sock.shutdown(socket.SHUT_RDWR)

        self.reader.cancel()
        self.peer.run(cut())


class MqttJs:
    """mqtt.js, all sessions in one child process."""

    def __init__(self, modules, level, scheme="mqtt"):
        self.level, self.scheme = level, scheme
        self.names = itertools.count()
        self.process = subprocess.Popen(
            ["node", str(NODE_AGENT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "NODE_PATH": modules}
        )

    def ask(self, what, **fields):
        self.process.stdin.write(json.dumps({"id": 0, "do": what, **fields}) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        assert "error" not in answer, answer["error"]
        return answer["ok"]

    def connect(self, address, **options):
        return MqttJsSession(self, address, **options)

    def close(self):
        self.process.kill()
        self.process.wait(10)
        self.process.stdin.close()
        self.process.stdout.close()


class MqttJsSession:
    def __init__(self, peer, address, client_id=None, clean=True, expiry=0, will=None):
        self.peer = peer
        self.name = str(next(peer.names))
        path = "/mqtt" if peer.scheme == "ws" else ""
        if will:
            topic, payload, qos, retain = will
            will = {"topic": topic, "payload": base64.b64encode(payload).decode(), "qos": qos, "retain": retain}
        url = f"{peer.scheme}://{address[0]}:{address[1]}{path}"
        identifier = client_id or f"js{uuid.uuid4().hex[:12]}"
        answer = self.ask("connect", url=url, version=peer.level, id=identifier, clean=clean, expiry=expiry, will=will)
        self.present = answer["present"]

    def ask(self, what, **fields):
        return self.peer.ask(what, name=self.name, **fields)

    def subscribe(self, filter, qos):
        granted = self.ask("subscribe", filter=filter, qos=qos)
        assert all(one["qos"] < 0x80 for one in granted), granted

    def publish(self, topic, *payloads, qos=0, retain=False):
        encoded = [base64.b64encode(payload).decode() for payload in payloads]
        assert self.ask("publish", topic=topic, payloads=encoded, qos=qos, retain=retain) == len(payloads)

    def messages(self, count, seconds=SECONDS):
        return self.decoded(self.ask("messages", count=count, seconds=seconds))

    def drain(self):
        return self.decoded(self.ask("drain"))

    def decoded(self, came):
        return [(topic, base64.b64decode(payload), qos, retain) for topic, payload, qos, retain in came]

    def end(self):
        self.ask("end")

    def kill(self):
        self.ask("kill")


class Mosquitto:
    """mosquitto_sub and mosquitto_pub, a process for each call."""

    def __init__(self, found, level):
        self.found, self.level = found, level
        self.environment = {**os.environ, "LD_LIBRARY_PATH": found["libraries"]}

    def connect(self, address, **options):
        return MosquittoSession(self, address, **options)


class MosquittoSession(Inbox):
    """Connects with its first subscription, for the program does not without one."""

    def __init__(self, peer, address, client_id=None, clean=True, expiry=0, will=None):
        super().__init__()
        self.peer, self.process, self.reader = peer, None, None
        # At 5.0 the program says goodbye with reason 0x04, which asks for the will.
        self.ends_with_will = peer.level == 5
        self.where = ["-h", address[0], "-p", str(address[1]), "-V", "5" if peer.level == 5 else "311"]
        self.options = ["-i", client_id or f"m{uuid.uuid4().hex[:12]}"]
        self.options += [] if clean else ["-c"]
        self.options += ["-x", str(expiry)] if expiry and peer.level == 5 else []
        if will:
            topic, payload, qos, retain = will
            self.options += ["--will-topic", topic, "--will-payload", payload.decode(), "--will-qos", str(qos)]
            self.options += ["--will-retain"] if retain else []
        self.subscribed = threading.Event()

    def subscribe(self, filter, qos):
        assert self.process is None, "one subscription for each session of mosquitto_sub"
        arguments = ["-t", filter, "-q", str(qos), "-d", "-F", "MESSAGE|%t|%x|%q|%r"]
        # Line by line: the word that it subscribed would stay in its buffer otherwise.
        command = ["stdbuf", "-oL", self.peer.found["subscribe"], *self.where, *self.options, *arguments]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=self.peer.environment
        )
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()
        in_time(self.subscribed, "SUBACK")

    def read(self):
        for line in self.process.stdout:
            if line.startswith("MESSAGE|"):
                topic, payload, qos, retain = line.rstrip("\n").split("|")[1:]
                self.queue.put((topic, bytes.fromhex(payload), int(qos), retain == "1"))
            elif line.startswith("Subscribed"):
                self.subscribed.set()

    def publish(self, topic, *payloads, qos=0, retain=False):
        flags = ["-t", topic, "-q", str(qos), *(["-r"] if retain else [])]
        if payloads == (b"",):
            how, given = ["-n"], b""
        elif len(payloads) == 1:
            how, given = ["-s"], payloads[0]
        else:
            how, given = ["-l"], b"".join(payload + b"\n" for payload in payloads)
        command = [self.peer.found["publish"], *self.where, *flags, *how]
        done = subprocess.run(command, input=given, capture_output=True, env=self.peer.environment, timeout=SECONDS)
        assert done.returncode == 0, done.stderr

    def end(self, kill=False):
        if self.process:
            self.process.kill() if kill else self.process.terminate()
            self.process.wait(10)
            self.reader.join(10)
            self.process.stdout.close()

    def kill(self):
        self.end(kill=True)
