"""Judges a crash run from outside: what publishers were promised against what each subscriber was given.

A stream is what one publisher sent at one QoS; its messages are numbered from 0, and the payload of each says whose it is.
"""

AT_LEAST, EXACTLY = 1, 2


def payload(name, qos, number):
    return b"%s %d %d ." % (name.encode(), qos, number)


def read(data):
    """Publisher, QoS and number, or None where no publisher of a run wrote this."""
    parts = data.split(b" ")
    if len(parts) != 4 or not parts[1].isdigit() or not parts[2].isdigit():
        return None
    return parts[0].decode(errors="replace"), int(parts[1]), int(parts[2])


class Stream:
    """What one publisher did at one QoS."""

    def __init__(self, name, qos):
        self.name, self.qos = name, qos
        self.attempted = 0  # numbers below this were sent, perhaps several times
        self.acked = set()

    @property
    def key(self):
        return self.name, self.qos


def judge(who, granted, streams, came):
    """`granted` gives the highest QoS that the subscriber was granted for a stream, None for one it did not ask for; `came` are the
    payloads in the order they came to the application. Returns the faults found and how many repeats came that may."""
    faults, repeats = [], 0
    known = {stream.key: stream for stream in streams}
    seen = {stream.key: set() for stream in streams}
    last = dict.fromkeys(known, -1)
    for at, data in enumerate(came):
        found = read(data)
        stream = found and known.get(found[:2])
        if stream is None or found[2] >= stream.attempted or not granted(stream):
            faults.append(f"{who}: invented: {data[:60]!r} at {at}")
            continue
        number = found[2]
        if number in seen[stream.key]:
            if min(stream.qos, granted(stream)) >= EXACTLY:
                faults.append(f"{who}: {data!r} twice, again at {at}")
            repeats += 1
        elif number < last[stream.key]:
            faults.append(f"{who}: {data!r} after {last[stream.key]} at {at}")
        else:
            last[stream.key] = number
        seen[stream.key].add(number)
    for stream in streams:
        lost = sorted(stream.acked - seen[stream.key]) if granted(stream) else []
        if lost:
            faults.append(f"{who}: of {stream.key} {len(lost)} acknowledged and lost, first {lost[:5]}")
    return faults, repeats


def missing(granted, streams, came):
    """How many acknowledged messages have not come yet."""
    seen = set(came)
    wanted = [stream for stream in streams if granted(stream)]
    return sum(payload(*stream.key, number) not in seen for stream in wanted for number in list(stream.acked))
