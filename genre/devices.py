"""The device that this machine computes on, and a description of its hardware."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

import torch

from genre.errors import DeviceError

_DRIVER_FILE = "/proc/driver/nvidia/version"
# the first driver that runs programs of each major version of CUDA, from NVIDIA's page "CUDA Compatibility"
_DRIVERS = {"12": 525, "13": 580}


def device_for(choice: str) -> torch.device:
    """Return the device for a value of the setting `device`. Raises `DeviceError` for a GPU that is missing."""
    if choice == "cuda":
        check_gpu()
    return torch.device("cuda" if choice != "cpu" and torch.cuda.is_available() else "cpu")


def check_gpu() -> None:
    """Raise `DeviceError`, with the reason, where torch sees no GPU."""
    if torch.cuda.is_available():
        return
    cuda, driver = torch.version.cuda, _driver()
    needed = _DRIVERS.get((cuda or "").partition(".")[0], 0)
    if cuda is None:
        reason = f"torch {torch.__version__} is built without CUDA; install the packages of requirements.lock"
    elif driver is None:
        reason = f"no NVIDIA driver was found; use machines with a driver of {needed} or later"
    elif int(driver.partition(".")[0]) < needed:
        reason = f"driver too old for this torch: needs {needed} or later, found {driver}; docs/CLUSTER.md names images"
    else:
        reason = f"CUDA {cuda} does not start with driver {driver}; see `nvidia-smi` there"
    raise DeviceError(f"torch sees no GPU on {platform.node()}: {reason}; or use device=cpu")


def _driver() -> str | None:
    """Return the version of the NVIDIA driver, such as "580.65.06"; None without one."""
    try:
        text = Path(_DRIVER_FILE).read_text(encoding="utf-8")
    except OSError:
        return None
    match = re.search(r"Kernel Module.*?\s(\d+\.[\d.]+)\s", text)
    return match[1] if match else None


def hardware() -> str:
    """Describe this machine: processor, cores and GPU."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ", no GPU"
    return f"{platform.machine()}, {cores} cores{gpu}"
