"""Writes docs/reference/mqtt-conformance.md: each normative statement with the tests that hold a broker to it.

The marks `v5` and `v3` of the tests are read from their source. `python3 clients/mqtt/table.py` writes the file; test_table.py fails
when it is stale, when a mark names no statement, and when a statement has neither a test nor a reason for having none.
"""

import ast
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from mqtt import statements5, statements311  # noqa: E402

TABLE = HERE.parents[1] / "docs/reference/mqtt-conformance.md"
VERSIONS = {"v5": ("MQTT 5.0", statements5), "v3": ("MQTT 3.1.1", statements311)}
HEAD = """# MQTT, statement by statement

Every normative statement of MQTT 5.0 and 3.1.1 in short, and the tests that hold a broker to it: packets written by hand, against the
real binary, and against mosquitto to prove the tests themselves. [clients/mqtt/](../../clients/mqtt/__init__.py) says how to run them.
The text of a statement is in the standard under its number. A statement without a test says why.

This page is written by `python3 clients/mqtt/table.py`; a test fails when it is stale.
"""


def marks():
    """For each version the statements that are marked, with the places `file:test` of their tests."""
    found = {version: {} for version in VERSIONS}
    for file in sorted(HERE.glob("test_*.py")):
        for function in ast.parse(file.read_text()).body:
            if not isinstance(function, ast.FunctionDef):
                continue
            calls = [node for decorator in function.decorator_list for node in ast.walk(decorator) if isinstance(node, ast.Call)]
            for call in calls:
                if isinstance(call.func, ast.Name) and call.func.id in VERSIONS:
                    for statement in call.args:
                        found[call.func.id].setdefault(statement.value, []).append((file.stem, function.name))
    return found


def by_file(places):
    """`file`: `test`, `test`; `file`: …"""
    files = {}
    for file, test in places:
        names = files.setdefault(file.removeprefix("test_"), [])
        if test not in names:
            names.append(test)
    return "; ".join(f"{file}: " + ", ".join(f"`{test.removeprefix('test_')}`" for test in tests) for file, tests in files.items())


def faults():
    """What is wrong with the marks: a list of sentences."""
    out = []
    found = marks()
    for version, (title, known) in VERSIONS.items():
        marked, listed, untested = set(found[version]), set(known.STATEMENTS), set(known.UNTESTED)
        out += [f"{title}: {statement} is marked and is no statement" for statement in sorted(marked - listed)]
        out += [f"{title}: {statement} has neither a test nor a reason" for statement in sorted(listed - marked - untested)]
        out += [f"{title}: {statement} has a test and a reason for none" for statement in sorted(marked & untested)]
        out += [f"{title}: {statement} has a reason and is no statement" for statement in sorted(untested - listed)]
    return out


def rendered():
    found = marks()
    lines = [HEAD]
    for version, (title, known) in VERSIONS.items():
        tested = len(found[version])
        lines.append(f"## {title}\n\n{tested} of {len(known.STATEMENTS)} statements have tests.\n")
        lines.append("| statement | in short | file: tests |\n|---|---|---|")
        for statement, words in known.STATEMENTS.items():
            tests = by_file(found[version].get(statement, [])) or f"none: {known.UNTESTED.get(statement, '')}"
            lines.append(f"| [MQTT-{statement}] | {words} | {tests} |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    if wrong := faults():
        sys.exit("\n".join(wrong))
    TABLE.write_text(rendered())
