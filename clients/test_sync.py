"""The order of system calls: no Produce answer leaves before the sync that covers it has returned; a failed sync ends the process."""

import re
import signal
import subprocess
import threading

import pytest
from conftest import had
from waiting import wait_until
from wire import PRODUCE, Closed, Wire, batch, produce_answer, produce_body

WRITES = ("pwrite64", "pwritev", "pwritev2", "write", "writev")
SENDS = ("sendto", "sendmsg", "write", "writev")
SYNCS = ("fdatasync", "fsync")
CALLS = ",".join(sorted({*WRITES, *SENDS, *SYNCS}))
CONNECTIONS, ROUNDS = 4, 15

LINE = re.compile(r"^(?P<pid>\d+)\s+(?P<rest>.*)$")
BEGUN = re.compile(r"^(?P<call>\w+)\((?P<fd>\d+)<(?P<what>TCP[^\]]*\]|[^>]*)>")
RESUMED = re.compile(r"^<\.\.\. (?P<call>\w+) resumed>")


class Call:
    """One system call: positions in the trace where it began and where it returned (None: never)."""

    def __init__(self, name, what, text, began):
        self.name, self.what, self.text, self.began = name, what, text, began
        self.returned = None
        self.failed = False


def parse(trace):
    """All calls of an `strace -f -yy` output in the order in which they began."""
    calls, unfinished = [], {}
    for position, line in enumerate(trace.splitlines()):
        found = LINE.match(line)
        if not found:
            continue
        pid, rest = found["pid"], found["rest"]
        if RESUMED.match(rest):
            call = unfinished.pop(pid, None)
            if call is not None:
                call.returned, call.failed = position, " = -1 " in rest
            continue
        begun = BEGUN.match(rest)
        if not begun:
            continue
        call = Call(begun["call"], begun["what"], rest, position)
        calls.append(call)
        if rest.endswith("<unfinished ...>"):
            unfinished[pid] = call
        else:
            call.returned, call.failed = position, " = -1 " in rest
    return calls


def uncovered(calls, marker, port):
    """Why the answer to the record with `marker`, sent to the client at `port`, was not covered by a sync; None when it was."""
    written = [call for call in calls if call.name in WRITES and marker in call.text and not call.what.startswith("TCP")]
    if not written:
        return f"{marker}: no write to a file holds it"
    write = written[0]
    syncs = [call for call in calls if call.name in SYNCS and call.what == write.what and call.began > write.returned and not call.failed]
    sends = [call for call in calls if call.name in SENDS and call.what.startswith("TCP") and f":{port}]" in call.what]
    answer = next((call for call in sends if call.began > write.began), None)
    if answer is None:
        return None if not syncs else f"{marker}: no answer in the trace"
    if not any(sync.returned is not None and sync.returned < answer.began for sync in syncs):
        return f"{marker}: answered at {answer.began}, written at {write.returned}, synced at {[s.returned for s in syncs][:1]}"
    return None


def test_the_parser_sees_an_early_answer():
    """The rule itself, on small traces: in order, too early, overlapping, failed."""
    file, peer = "/d/extent-1", "TCP:[127.0.0.1:9092->127.0.0.1:555]"
    good = f'1 pwritev(3<{file}>, "m-1") = 9\n2 fdatasync(3<{file}>) = 0\n3 sendto(4<{peer}>, "x") = 1\n'
    assert uncovered(parse(good), "m-1", 555) is None
    early = f'1 pwritev(3<{file}>, "m-1") = 9\n3 sendto(4<{peer}>, "x") = 1\n2 fdatasync(3<{file}>) = 0\n'
    assert "answered at" in uncovered(parse(early), "m-1", 555)
    overlapping = (
        f'1 pwritev(3<{file}>, "m-1") = 9\n2 fdatasync(3<{file}> <unfinished ...>\n3 sendto(4<{peer}>, "x") = 1\n'
        "2 <... fdatasync resumed>) = 0\n"
    )
    assert "answered at" in uncovered(parse(overlapping), "m-1", 555)
    failed = f'1 pwritev(3<{file}>, "m-1") = 9\n2 fdatasync(3<{file}>) = -1 EIO\n3 sendto(4<{peer}>, "x") = 1\n'
    assert "answered at" in uncovered(parse(failed), "m-1", 555)
    assert "no write" in uncovered(parse(good), "m-2", 555)


def test_no_answer_before_its_sync(real_binary, make_server, java, tmp_path, fresh):
    trace = tmp_path / "trace"
    strace = had("strace")["command"]
    server = make_server(wrap=[strace, "-f", "-yy", "-s", "65536", "-e", f"trace={CALLS}", "-e", "signal=none", "-o", str(trace)])
    server.start()
    topic = fresh()
    java.admin(server.bootstrap, "create_topic", topic=topic, partitions=CONNECTIONS)
    sent, faults = [], []

    def publish(number):
        try:
            with Wire(server.bootstrap, timeout=60) as wire:
                for round_number in range(ROUNDS):
                    marker = f"marker-{number}-{round_number}-"
                    assert wire.produce(topic, batch([marker.encode()]), partition=number)[0] == 0
                    sent.append((marker, wire.local_port))
        except BaseException as failed:  # noqa: BLE001: told by the main thread
            faults.append(repr(failed))

    threads = [threading.Thread(target=publish, args=(number,)) for number in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    server.stop()
    assert not faults and len(sent) == CONNECTIONS * ROUNDS, faults
    calls = parse(trace.read_text(errors="replace"))
    assert any(call.name in SYNCS for call in calls)
    found = [fault for fault in (uncovered(calls, marker, port) for marker, port in sent) if fault]
    assert not found, "\n".join(found[:5])


def test_failed_sync_ends_the_process_unacknowledged(real_binary, make_server, java, fresh):
    """EIO from the next fdatasync: no acknowledgement, a process that ends by itself with an error, and a journal that opens again."""
    strace = had("strace")["command"]
    server = make_server()
    server.start()
    topic = fresh()
    java.admin(server.bootstrap, "create_topic", topic=topic, partitions=1)
    with Wire(server.bootstrap) as wire:
        assert wire.produce(topic, batch([b"before"]))[:2] == (0, 0)
        tracer = subprocess.Popen(
            [strace, "-f", "-p", str(server.pid), "-e", "trace=fdatasync,fsync", "-e", "inject=fdatasync,fsync:error=EIO:when=1+"],
            stderr=subprocess.PIPE,
            text=True,
        )
        # strace says "attached" once for all threads that it found
        assert "attached" in tracer.stderr.readline()
        threading.Thread(target=tracer.stderr.read, daemon=True).start()
        correlation = wire.send(PRODUCE, 7, produce_body(topic, batch([b"unsynced"])))
        with pytest.raises(Closed):
            answered, answer = wire.receive()
            assert answered != correlation or produce_answer(answer)[0] != 0, "acknowledged though the sync failed"
            wire.receive()
    try:
        code = server.process.wait(15)
    finally:
        tracer.send_signal(signal.SIGTERM)
        tracer.wait(10)
    assert code != 0, server.said()
    assert "fdatasync" in server.said() or "sync" in server.said(), "it says why it ended"
    server.start()
    got = java.consume(server.bootstrap, {topic: 1})[topic]
    assert got[0].value == b"before"
    with Wire(server.bootstrap) as wire:
        assert wire.produce(topic, batch([b"after"]))[0] == 0
    wait_until(lambda: java.admin(server.bootstrap, "list_offsets", topic=topic, at="latest")[0] in (2, 3), 10)
