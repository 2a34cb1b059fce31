"""Runs mosquitto in place of Firth: called with a port and a data directory, it becomes the broker (see the package's docstring).

It takes the mosquitto that the set-up unpacked below target/clients, or the system's own.
"""

import json
import os
import shutil
import sys
from pathlib import Path

CONFIGURATION = """
listener {port} 127.0.0.1
allow_anonymous true
persistence true
persistence_location {data}/
max_queued_messages 0
sys_interval 1
set_tcp_nodelay true
user root
"""


def main():
    port, data = int(sys.argv[1]), Path(sys.argv[2])
    data.mkdir(parents=True, exist_ok=True)
    file = data / "mosquitto.conf"
    file.write_text(CONFIGURATION.format(port=port, data=data))
    have = Path(os.environ.get("FIRTH_CLIENTS", Path(__file__).resolve().parents[2] / "target/clients")) / "have.json"
    found = json.loads(have.read_text()).get("mosquitto") if have.exists() else None
    environment = {**os.environ, "LD_LIBRARY_PATH": found["libraries"]} if found else dict(os.environ)
    command = found["broker"] if found else shutil.which("mosquitto") or sys.exit("mosquitto was not had: see `cargo xtask clients`")
    os.execve(command, [command, "-c", str(file)], environment)


if __name__ == "__main__":
    main()
