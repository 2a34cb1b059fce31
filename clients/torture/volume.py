"""A small ext4 volume in a file, where the machine lets us mount one."""

import subprocess

import pytest


class Volume:
    """Mounted at `path`; `close` takes it away."""

    def __init__(self, directory, mib):
        self.image, self.path = directory / "volume.img", directory / "volume"
        self.path.mkdir()
        with open(self.image, "wb") as file:
            file.truncate(mib << 20)
        run("mkfs.ext4", "-q", "-F", "-m", "0", str(self.image))
        run("mount", "-o", "loop", str(self.image), str(self.path))

    def close(self):
        run("umount", str(self.path))

    def fill(self, name, bytes_max=None):
        """A file of somebody else's, of `bytes_max` or whatever is left."""
        left = bytes_max if bytes_max is not None else 1 << 40
        with open(self.path / name, "wb", buffering=0) as file:
            # Smaller and smaller pieces, down to the last block.
            for piece in (1 << 20, 64 << 10, 4 << 10, 1 << 10):
                try:
                    while left >= piece:
                        left -= file.write(b"\xa5" * piece)
                except OSError:
                    continue
        return self.path / name


def run(*command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except OSError as missing:
        pytest.skip(f"a volume of its own is needed: {missing}")
    if done.returncode != 0:
        pytest.skip(f"a volume of its own is needed: {' '.join(command[:3])}: {done.stderr.strip()[:200]}")
