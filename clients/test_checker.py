"""The crash checker itself: each fault it must see, seen once."""

import pytest
from checker import Publisher, judge

FILE = "A 0 0\nA 1 1\nK 0 0 0\nA 3 0\nK 3 0 1\nA 6 0\nEND\n"
GOOD = [(0, 0, b"p 0 ."), (0, 1, b"p 3 ."), (0, 2, b"p 6 ."), (1, 0, b"p 1 .")]


def faults_of(tmp_path, log, idempotent=True):
    path = tmp_path / "p.log"
    path.write_text(FILE)
    return judge([Publisher("p", idempotent, path)], log)


def test_a_good_log_has_no_fault(tmp_path):
    assert faults_of(tmp_path, GOOD) == ([], 0)


@pytest.mark.parametrize(
    "log, word",
    [
        (GOOD[:1] + GOOD[3:], "acknowledged and lost"),
        (GOOD + [(2, 0, b"p 2 .")], "invented"),
        (GOOD + [(0, 3, b"q 0 .")], "invented"),
        (GOOD + [(1, 1, b"p 1 .")], "twice"),
        ([(0, 0, b"p 3 ."), (0, 1, b"p 0 .")], "after"),
        ([(0, 0, b"p 0 ."), (0, 2, b"p 3 .")], "was due"),
        ([(0, 0, b"p 0 ."), (0, 1, b"p 6 ."), (0, 2, b"p 3 .")], "where they are not"),
    ],
)
def test_every_fault_is_seen(tmp_path, log, word):
    assert any(word in fault for fault in faults_of(tmp_path, log)[0])


def test_a_plain_publisher_may_repeat(tmp_path):
    assert faults_of(tmp_path, GOOD + [(1, 1, b"p 1 .")], idempotent=False) == ([], 1)
