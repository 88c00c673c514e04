"""A trainer's state in a file, from which an interrupted training resumes."""

from __future__ import annotations

import io
import zipfile
from typing import Any

import torch

from genre.storage import Location


def save(path: Location, state: dict[str, Any]) -> None:
    """Write a state: tensors and plain values."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    path.write_bytes(buffer.getvalue())


def load(path: Location) -> dict[str, Any]:
    """Read a state without executing anything inside it."""
    state: dict[str, Any] = torch.load(io.BytesIO(path.read_bytes()), map_location="cpu", weights_only=True)
    return state


def is_complete(path: Location) -> bool:
    """Return whether a state was written completely: it is a ZIP archive, whose index comes last."""
    return path.exists() and zipfile.is_zipfile(io.BytesIO(path.read_bytes()))
