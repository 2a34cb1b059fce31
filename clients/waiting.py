"""Waiting for a condition with a deadline, never for a time."""

import time


def wait_until(condition, seconds=30, what="the condition", every=0.05):
    """Returns the first true value of `condition()`; fails with `what` (a text or a function) after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what() if callable(what) else what}")
        time.sleep(every)
