"""The device that this machine computes on, and a description of its hardware."""

from __future__ import annotations

import os
import platform

import torch

from genre.errors import ArtifactError


def device_for(choice: str) -> torch.device:
    """Return the device for a value of the setting `device`. Raises `ArtifactError` for a GPU that is missing."""
    if choice == "cuda" and not torch.cuda.is_available():
        raise ArtifactError("device=cuda, but torch finds no GPU here; use device=auto or cpu")
    return torch.device("cuda" if choice != "cpu" and torch.cuda.is_available() else "cpu")


def hardware() -> str:
    """Describe this machine: processor, cores and GPU."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ", no GPU"
    return f"{platform.machine()}, {cores} cores{gpu}"
