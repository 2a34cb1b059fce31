"""A control group with a memory limit, where the machine lets us make one."""

import os
import time
from pathlib import Path

import pytest

ROOT = Path("/sys/fs/cgroup")


class MemoryGroup:
    """Version 1 or 2, whichever is there."""

    def __init__(self, bytes_max):
        first = (ROOT / "memory").is_dir()
        self.path = (ROOT / "memory" if first else ROOT) / f"firth-drill-{os.getpid()}"
        self.usage = "memory.usage_in_bytes" if first else "memory.current"
        try:
            self.path.mkdir()
            (self.path / ("memory.limit_in_bytes" if first else "memory.max")).write_text(str(bytes_max))
        except OSError as refused:
            pytest.skip(f"a control group of its own is needed: {refused}")

    @property
    def wrap(self):
        """A command's beginning: what follows runs in the group."""
        return ["sh", "-c", f'echo $$ > {self.path}/cgroup.procs && exec "$@"', "sh"]

    def kills(self):
        """How many processes the kernel killed for want of memory."""
        for name in ("memory.oom_control", "memory.events"):
            file = self.path / name
            if file.exists():
                return sum(int(line.split()[1]) for line in file.read_text().splitlines() if line.startswith("oom_kill "))
        return 0

    def own_bytes(self):
        """What the processes hold themselves, files in the page cache not counted."""
        fields = dict(line.split() for line in (self.path / "memory.stat").read_text().splitlines())
        return int(fields.get("total_rss", fields.get("rss", fields.get("anon", 0))))

    def close(self):
        deadline = time.monotonic() + 10
        while True:
            try:
                return self.path.rmdir()
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
