"""The versions of the software that results depend on."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from genre import __version__, registry


def packages() -> dict[str, str]:
    """Return the versions of the packages that results depend on, those of plug-ins among them."""
    names = ("ray", "torch", "torchaudio", "librosa", "soundfile", "soxr", "scikit-learn", "pyarrow")
    ours = {"genre": __version__, "python": sys.version.split()[0]}
    return ours | {name: version(name) for name in names} | registry.packages()


def commit() -> str:
    """Return the commit of the running code, or "" outside of a checkout.

    An installed package is outside, also where its environment is in the checkout of another project.
    """
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return ""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=root, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()
