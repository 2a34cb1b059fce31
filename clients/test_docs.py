"""Every ```console block of the README and the docs is run against a real server and must print what it shows.

Lines that begin with `$ ` are commands, a command goes on after `\\`; the lines below are what it prints. `...` stands for any text in
a line, a line of `...` for any lines. 127.0.0.1:9092 stands for the server under test, and so does `127.0.0.1 -p 1883`. The blocks of a
file run in order, in one directory, with `firth`, `kcat` and mosquitto's tools on the path.
"""

import os
import re
import subprocess
from pathlib import Path

import pytest
import server as servers

FILES = [servers.ROOT / "README.md", *sorted((servers.ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ADDRESS = "127.0.0.1:9092"
MQTT_ADDRESS = "127.0.0.1 -p 1883"


def steps(block):
    """(command, expected lines) of a block."""
    found = []
    for line in block.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        elif found and found[-1][0].endswith("\\") and not found[-1][1]:
            found[-1] = (found[-1][0] + "\n" + line, [])
        elif found:
            found[-1][1].append(line)
    return found


def matches(printed, expected):
    """Whether the printed lines are the expected ones, wildcards heeded."""
    pattern = ""
    for line in expected:
        pattern += "(?:.*\n)*" if line.strip() == "..." else re.escape(line.rstrip()).replace(r"\.\.\.", ".*") + "[ \t]*\n"
    return re.fullmatch(pattern, "".join(line.rstrip() + "\n" for line in printed)) is not None


def test_wildcards():
    assert matches(["a", "b"], ["a", "b"]) and not matches(["a", "b"], ["a"])
    assert matches(["a 17 x", "y"], ["a ... x", "..."]) and not matches(["b 17 x"], ["a ... x"])
    assert steps("$ one \\\n  two\nout\n$ three\n") == [("one \\\n  two", ["out"]), ("three", [])]


def blocks_of(file):
    return [block for block in BLOCK.findall(file.read_text())] if file.exists() else []


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(servers.ROOT)))
def test_console_blocks(real_binary, make_server, tmp_path, file):
    blocks = blocks_of(file)
    if not blocks:
        return
    server = make_server(mqtt=True)
    server.start()
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "firth").symlink_to(Path(real_binary).resolve())
    env = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"}
    if any("kcat" in block for block in blocks):
        from conftest import had

        kcat = had("kcat")
        (tools / "kcat").write_text(f"#!/bin/sh\nLD_LIBRARY_PATH={kcat['libraries']} exec {kcat['command']} \"$@\"\n")
        (tools / "kcat").chmod(0o755)
    if any("mosquitto_" in block for block in blocks):
        from conftest import had

        mosquitto = had("mosquitto")
        for name, command in (("pub", mosquitto["publish"]), ("sub", mosquitto["subscribe"])):
            (tools / f"mosquitto_{name}").write_text(
                f"#!/bin/sh\nLD_LIBRARY_PATH={mosquitto['libraries']} exec {command} \"$@\"\n"
            )
            (tools / f"mosquitto_{name}").chmod(0o755)
    mqtt_address = f"127.0.0.1 -p {server.mqtt_port}"
    for block in blocks:
        for command, expected in steps(block):
            done = subprocess.run(
                ["bash", "-c", command.replace(ADDRESS, server.bootstrap).replace(MQTT_ADDRESS, mqtt_address)],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=60,
                cwd=tmp_path,
                env=env,
            )
            printed = done.stdout.replace(server.bootstrap, ADDRESS).splitlines()
            assert matches(printed, expected), f"$ {command}\nprinted (code {done.returncode}):\n" + "\n".join(printed)
