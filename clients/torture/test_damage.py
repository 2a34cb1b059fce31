"""Bits flipped, blocks zeroed, files cut short in copies of the data: told, never served, and nothing else is lost."""

import os
import random
import re
import shutil
import struct
import subprocess

import pytest
import server as servers
from waiting import wait_until
from wire import Wire, batch, split_batches

DAMAGES = int(os.environ.get("FIRTH_DAMAGES", "25"))
TOPICS, PARTITIONS = ("many", "few"), 3
EXTENT = 4 << 20
SETTINGS = {
    "journal.extent_bytes": EXTENT,
    "journal.bytes_max": 4 * EXTENT,
    "archive.after_ms": 1000,
    "cache.tail_bytes": 1 << 20,
    "kafka.partitions": PARTITIONS,
}


def fill(server, chance):
    """Batches of 1 to 40 KiB, some of which move into segments, others stay in the journal; a restart in between."""
    with Wire(server.bootstrap) as wire:
        publish_batches(wire, chance, range(450))
    server.restart()
    with Wire(server.bootstrap) as wire:
        publish_batches(wire, chance, range(450, 900))


def publish_batches(wire, chance, numbers):
    for number in numbers:
        values = [chance.randbytes(chance.randrange(100, 4000)) for _ in range(chance.randrange(1, 20))]
        error = wire.produce(TOPICS[number % 10 == 0], batch(values), number % PARTITIONS)[0]
        assert error == 0, error


def span(raw):
    """First offset and one past the last of a stored batch."""
    base = struct.unpack_from(">q", raw)[0]
    return base, base + struct.unpack_from(">i", raw, 23)[0] + 1


def read_all(bootstrap, topic, partition, expected=None, gaps=False):
    """Every batch by its first offset, and the ranges that were refused. A gap without an error is a fault, but after a repair, which
    told of it: it is a silent loss."""
    got, refused, offset = {}, [], 0
    with Wire(bootstrap, timeout=30) as wire:
        while True:
            error, high, raw = wire.fetch(topic, partition, offset, bytes_max=1 << 20, wait_ms=0)
            whole = split_batches(raw)
            if error == 0 and not whole:
                assert gaps or offset >= high, f"{topic}/{partition}: nothing at {offset} below {high}, and no error"
                return got, refused
            if error:
                # A client may skip the batch it cannot have.
                after = min((span(known)[1] for known in (expected or {}).values() if span(known)[1] > offset), default=None)
                if after is None:
                    return got, refused
                refused.append((offset, after))
                offset = after
                continue
            for one in whole:
                base, end = span(one)
                assert (gaps or base <= offset) and offset < end, f"{topic}/{partition}: {base} came where {offset} was asked for, and no error"
                got[base] = one
                offset = end


def read_everything(bootstrap, expected=None, gaps=False):
    places = [(topic, partition) for topic in TOPICS for partition in range(PARTITIONS)]
    return {place: read_all(bootstrap, *place, expected and expected[place], gaps) for place in places}


def lost_bytes(read, expected):
    """Checks that what was read is what was written; returns the bytes that were not served."""
    lost = 0
    for place, batches in expected.items():
        got = read.get(place, ({}, []))[0]
        for base, raw in got.items():
            assert batches.get(base) == raw, f"wrong bytes at {place}/{base}"
        lost += sum(len(raw) for base, raw in batches.items() if base not in got)
    return lost


def unnamed(read, expected, said):
    """Batches that are not served and that a repair did not name, if it says that it named all."""
    if "nothing names" in said or "nothing says" in said:
        return []
    named = [(topic, int(partition), int(first), int(last)) for topic, partition, first, last in NAMED.findall(said)]
    missing = []
    for (topic, partition), batches in expected.items():
        got = read[(topic, partition)][0]
        for base, raw in batches.items():
            told = any(one[:2] == (topic, partition) and one[2] <= base and span(raw)[1] - 1 <= one[3] for one in named)
            if base not in got and not told:
                missing.append((topic, partition, base))
    return missing


def damage(data, chance):
    """Harms one file of the data directory; returns what was done."""
    kinds = {"journal": "journal/0/*.fj", "segments": "segments/*", "checkpoints": "archive/ckpt*"}
    found = {kind: sorted(file for file in data.glob(pattern) if file.is_file()) for kind, pattern in kinds.items()}
    kind = chance.choice([kind for kind, files in found.items() if files])
    file = chance.choice(found[kind])
    size = file.stat().st_size
    way = chance.choice(("flip", "zero", "cut"))
    at = chance.randrange(size)
    with open(file, "r+b") as handle:
        if way == "flip":
            handle.seek(at)
            byte = handle.read(1)[0]
            handle.seek(at)
            handle.write(bytes([byte ^ 1 << chance.randrange(8)]))
        elif way == "zero":
            at = at // 4096 * 4096
            handle.seek(at)
            handle.write(b"\0" * min(4096, size - at))
        else:
            handle.truncate(at)
    return kind, size, f"{way} {file.relative_to(data)} at {at} of {size}"


def firth(*arguments):
    return subprocess.run([servers.BINARY, *map(str, arguments)], capture_output=True, text=True, timeout=120)


NAMED = re.compile(r"(\w+)/(\d+) offsets (\d+) to (\d+)")


def modified(data):
    return {file: file.stat().st_mtime_ns for file in data.rglob("*") if file.is_file() and file.name != "lock"}


def is_covered(kind, told):
    """A version whose `firth verify` does not read segments is held to what it serves only."""
    return kind != "segments" or "segment" in told.stdout


def starts(server):
    try:
        server.start()
        return True
    except AssertionError as refused:
        assert "panicked" not in str(refused), refused
        assert not server.alive(), "a start that is refused ends"
        return False


class Tally:
    def __init__(self):
        self.told = self.harmless = self.refused_starts = self.partial = self.mended = self.repaired = 0


@pytest.fixture
def pristine(make_server, java, seed):
    """A stopped data directory, and every batch in it."""
    chance = random.Random(seed)
    server = make_server(settings=SETTINGS)
    server.start()
    for topic in TOPICS:
        java.admin(server.bootstrap, "create_topic", topic=topic, partitions=PARTITIONS)
    fill(server, chance)
    wait_until(lambda: any(server.data.glob("segments/*")), 60, "old records move into segments")
    wait_until(lambda: any(server.data.glob("archive/ckpt*done")), 60, "a checkpoint is taken")
    with Wire(server.bootstrap) as wire:
        publish_batches(wire, chance, range(900, 1100))
    expected = {place: got for place, (got, _) in read_everything(server.bootstrap).items()}
    server.stop()
    return server.data, expected, chance


@pytest.mark.timeout(120 + 20 * DAMAGES)
def test_damage_is_told_and_never_served(pristine, make_server, tmp_path):
    data, expected, chance = pristine
    tally = Tally()
    for number in range(DAMAGES):
        server = make_server(settings=SETTINGS)
        shutil.copytree(data, server.data)
        kind, size, what = damage(server.data, chance)
        told = firth("verify", "--data", server.data)
        print(f"{number}: {what}: {'told' if told.returncode else 'sound'}")
        one(server, kind, size, told, expected, tally)
        server.kill9()
        shutil.rmtree(server.data)
    print(
        f"{DAMAGES} damages: {tally.told} told, {tally.harmless} in dead bytes; {tally.refused_starts} starts refused, "
        f"{tally.partial} served all but the damaged; {tally.mended} mended by the start, {tally.repaired} repaired"
    )


def one(server, kind, size, told, expected, tally):
    """One damage from its report to its repair."""
    tally.told += told.returncode != 0
    tally.harmless += told.returncode == 0 and is_covered(kind, told)
    may_lose = 0 if kind == "checkpoints" else size
    if starts(server):
        lost = lost_bytes(read_everything(server.bootstrap, expected), expected)
        tally.partial += lost > 0
        print(f"  served all but {lost} bytes")
        assert told.returncode != 0 or lost == 0 or not is_covered(kind, told), f"{lost} bytes are not served, and verify says: {told.stdout[-500:]}"
        assert lost <= may_lose, f"{lost} bytes are lost"
        server.stop()
    else:
        tally.refused_starts += 1
        assert told.returncode != 0 or not is_covered(kind, told), f"a start is refused, and verify says: {told.stdout[-500:]}; the server: {server.said()}"
    if told.returncode == 0:
        return
    if firth("verify", "--data", server.data).returncode == 0:
        tally.mended += 1
        return
    before = modified(server.data)
    planned = firth("repair", "--data", server.data)
    assert planned.returncode == 1 and "--accept-loss" in planned.stdout, planned
    assert before == modified(server.data), "without --accept-loss nothing is changed"
    repaired = firth("repair", "--data", server.data, "--accept-loss")
    assert repaired.returncode == 0, repaired.stdout[-500:] + repaired.stderr[-500:]
    after = firth("verify", "--data", server.data)
    assert after.returncode == 0, f"after {repaired.stdout}: {after.stdout}"
    server.start()
    read = read_everything(server.bootstrap, expected, gaps=True)
    lost = lost_bytes(read, expected)
    assert lost <= may_lose, f"{lost} bytes are lost after a repair: {repaired.stdout[-500:]}"
    assert not any(refused for _, refused in read.values()), "after a repair everything that is left is served"
    assert not unnamed(read, expected, repaired.stdout), f"lost and not named: {repaired.stdout}"
    print(f"  repaired, but for {lost} bytes: {repaired.stdout.splitlines()[:3]}")
    tally.repaired += 1

def test_a_segment_that_only_the_journal_names(make_server, java, seed):
    """Before a checkpoint holds them, segments are named by the journal alone: `verify` and `repair` tell of one that is damaged or
    missing all the same, and what a repair says that it would give up is what it gives up."""
    chance = random.Random(seed)
    server = make_server(settings=SETTINGS)
    server.start()
    for topic in TOPICS:
        java.admin(server.bootstrap, "create_topic", topic=topic, partitions=PARTITIONS)
    with Wire(server.bootstrap) as wire:
        publish_batches(wire, chance, range(450))

    def named():
        """A segment that the journal names; before that nothing refers to it."""
        held = b"".join(extent.read_bytes() for extent in sorted(server.data.glob("journal/0/*.fj")))
        ids = {path: bytes.fromhex(path.suffix[1:]) for path in server.data.glob("segments/seg.*") if path.suffix != ".tmp"}
        return next((path for path, number in ids.items() if number in held or number[::-1] in held), None)

    wait_until(named, 60, "old records move into segments")
    server.kill9()
    for checkpoint in server.data.glob("archive/ckpt*"):
        checkpoint.unlink()
    assert (server.data / "journal/0/00000000000000000000.fj").exists(), "the journal reaches back to its beginning"
    assert firth("verify", "--data", server.data).returncode == 0
    segment = named()
    whole = segment.read_bytes()
    for harm in (lambda: segment.write_bytes(whole[:100] + bytes(4096) + whole[4196:]), segment.unlink):
        harm()
        told = firth("verify", "--data", server.data)
        assert told.returncode == 1 and segment.name in told.stdout.replace("/", "."), told
        planned = firth("repair", "--data", server.data)
        assert planned.returncode == 1 and NAMED.search(planned.stdout), planned
    repaired = firth("repair", "--data", server.data, "--accept-loss")
    assert repaired.returncode == 0 and NAMED.findall(repaired.stdout) == NAMED.findall(planned.stdout), (planned, repaired)
    assert firth("verify", "--data", server.data).returncode == 0
