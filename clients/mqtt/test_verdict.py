"""The checker of the crash runs itself: each fault it must see, seen once."""

import pytest

from mqtt.verdict import Stream, judge, missing, payload


def streams():
    """Two of one publisher: at each QoS 0 to 4 were sent, all but 4 acknowledged."""
    made = [Stream("p", 1), Stream("p", 2)]
    for one in made:
        one.attempted, one.acked = 5, {0, 1, 2, 3}
    return made


def log(*numbers, qos=2):
    return [payload("p", qos, number) for number in numbers]


GOOD = log(0, 1, qos=1) + log(0, 1, 2, 3) + log(2, 3, 4, qos=1)


def faults_of(came, granted=2):
    return judge("s", lambda stream: granted, streams(), came)[0]


def test_a_good_run_has_no_fault():
    assert judge("s", lambda stream: 2, streams(), GOOD) == ([], 0)
    assert missing(lambda stream: 2, streams(), GOOD) == 0


@pytest.mark.parametrize(
    "came, word",
    [
        (log(0, 1, 2, 3, qos=1) + log(0, 1, 3), "lost"),
        (log(0, 1, 3, qos=1) + log(0, 1, 2, 3), "lost"),
        (GOOD + log(3), "twice"),
        (GOOD + log(5), "invented"),
        (GOOD + [payload("q", 1, 0)], "invented"),
        (GOOD + [b"something else"], "invented"),
        (log(0, 1, 2, 3, qos=1) + log(0, 2, 1, 3), "after"),
        (log(0, 2, 1, 3, qos=1) + log(0, 1, 2, 3), "after"),
    ],
)
def test_every_fault_is_seen(came, word):
    assert any(word in fault for fault in faults_of(came)), faults_of(came)
    assert len(faults_of(came)) == 1


def test_at_qos_1_a_message_may_come_again():
    assert judge("s", lambda stream: 2, streams(), GOOD + log(1, 2, qos=1)) == ([], 2)
    assert judge("s", lambda stream: 1, streams(), GOOD + log(1, 2)) == ([], 2)


def test_what_was_not_asked_for_is_invented():
    assert len(judge("s", lambda stream: 1 if stream.qos == 1 else None, streams(), GOOD)[0]) == 4
    assert missing(lambda stream: 1 if stream.qos == 1 else None, streams(), []) == 4
