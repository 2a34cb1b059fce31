"""Marks of the MQTT tests: which statements of a standard a test holds a broker to, and where another broker is known to differ."""

import pytest


def v5(*statements):
    """Numbers of normative statements of MQTT 5.0: "3.1.0-1" is [MQTT-3.1.0-1]."""
    return pytest.mark.v5(*statements)


def v3(*statements):
    """The same of MQTT 3.1.1."""
    return pytest.mark.v3(*statements)


def differs(who, why, level=None, always=True, run=True):
    """The test is right and the broker `who` is expected to fail it: at this level only if one is given, now and then if not `always`.
    It is not even run there if not `run`."""
    return pytest.mark.differs(who, why, level=level, always=always, run=run)
