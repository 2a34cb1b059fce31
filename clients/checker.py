"""Judges a crash run from outside: the publishers' own files against what another client reads."""

from publisher import PARTITIONS

ATTEMPTED, ACKED, SEEN = 1, 2, 4


class Publisher:
    """What one publisher's file says."""

    def __init__(self, name, idempotent, path):
        self.name, self.idempotent = name, idempotent
        self.marks = bytearray()
        self.offsets = {}
        self.failed, self.ended = [], False
        self.last = [-1] * PARTITIONS
        self.last_new = [-1] * PARTITIONS
        for line in path.read_text().splitlines():
            self.note(line.split(" "))

    def note(self, parts):
        if parts[0] == "END":
            self.ended = True
            return
        sequence = int(parts[1])
        if parts[0] == "A":
            self.marks.extend(b"\0" * (sequence + 1 - len(self.marks)))
            self.marks[sequence] |= ATTEMPTED
        elif parts[0] == "K":
            self.marks[sequence] |= ACKED
            self.offsets[sequence] = int(parts[3])
        elif parts[0] == "F":
            self.failed.append(" ".join(parts[1:]))

    @property
    def acked(self):
        return sum(1 for mark in self.marks if mark & ACKED)


def judge(publishers, log):
    """`log` gives (partition, offset, value) in order per partition. Returns the faults found and how many repeated records there were."""
    faults, repeats = [], 0
    by_name = {publisher.name: publisher for publisher in publishers}
    expected = [0] * PARTITIONS
    for partition, offset, value in log:
        if offset != expected[partition]:
            faults.append(f"partition {partition}: offset {offset} where {expected[partition]} was due")
        expected[partition] = offset + 1
        name, sequence = value.split(b" ")[0].decode(), int(value.split(b" ")[1])
        publisher = by_name.get(name)
        tried = publisher is not None and sequence < len(publisher.marks) and publisher.marks[sequence] & ATTEMPTED
        if not tried or sequence % PARTITIONS != partition:
            faults.append(f"invented: {value[:40]!r} at {partition}/{offset}")
            continue
        if publisher.marks[sequence] & SEEN:
            repeats += 1
            if publisher.idempotent:
                faults.append(f"{name}: {sequence} is there twice, again at {partition}/{offset}")
        elif sequence < publisher.last_new[partition]:
            faults.append(f"{name}: {sequence} after {publisher.last_new[partition]} in partition {partition}")
        else:
            publisher.last_new[partition] = sequence
        if publisher.offsets.get(sequence) == offset:
            del publisher.offsets[sequence]
        publisher.marks[sequence] |= SEEN
    for publisher in publishers:
        lost = [sequence for sequence, mark in enumerate(publisher.marks) if mark & ACKED and not mark & SEEN]
        if lost:
            faults.append(f"{publisher.name}: {len(lost)} acknowledged and lost, first {lost[:5]}")
        # An acknowledgement may leave the offset out (-1), as that of a repeated batch does in some clients.
        astray = {sequence: offset for sequence, offset in publisher.offsets.items() if offset >= 0}
        if astray:
            faults.append(f"{publisher.name}: acknowledged at offsets where they are not: {list(astray.items())[:5]}")
    return faults, repeats
