"""Environments of their own, in which packages are installed."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Mapping
from pathlib import Path

import pytest

CLEAN = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "RAY_"))}


def run(
    *command: str | Path, cwd: Path, code: int = 0, variables: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command without the variables of this process's Python and check its exit code."""
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=CLEAN | dict(variables or {}), capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


def make_environment(folder: Path, wheel: Path) -> Path:
    """Make an environment with the wheel and none of its dependencies; return its bin folder."""
    venv.create(folder, with_pip=False)
    run(sys.executable, "-m", "pip", "--python", folder, "install", "--no-deps", "--no-index", wheel, cwd=folder)
    return folder / "bin"


def share(folder: Path) -> None:
    """Let an environment find all packages of this one."""
    site = folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    (site / "shared.pth").write_text(sysconfig.get_path("purelib"))


def install_or_skip(folder: Path, *packages: str | Path) -> None:
    """Install packages from the registry into an environment; skip the test when it is not reachable."""
    command = [sys.executable, "-m", "pip", "--python", folder, "install", "--quiet", "--retries", "1", *packages]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if done.returncode:
        unreachable = ("NewConnectionError", "Max retries", "No matching distribution", "ConnectTimeout")
        assert any(message in done.stdout + done.stderr for message in unreachable), done.stderr
        pytest.skip(f"the package registry is not reachable: {done.stderr.strip().splitlines()[-1]}")
