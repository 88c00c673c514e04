"""File systems that are full soon, for the tests of what happens then."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def small_disk(disk: Path, options: str) -> Iterator[Path]:
    """Mount a file system with these options of tmpfs, such as `size=64k`; skip the test where that is not allowed."""
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a file system")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)  # after an error it is still mapped


def resize(disk: Path, size: str) -> None:
    """Give a disk of `small_disk` another size."""
    subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)
