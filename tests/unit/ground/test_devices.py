"""Why torch sees no GPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from genre import devices
from genre.errors import DeviceError

DRIVER = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  {}  Sat Aug 26 19:38:27 UTC 2023\nGCC version:  gcc 11\n"


@pytest.mark.parametrize(
    ("cuda", "driver", "reason"),
    [
        ("13.0", "535.104.05", r"driver too old for this torch: needs 580 or later, found 535\.104\.05"),
        ("13.0", "580.65.06", r"CUDA 13\.0 does not start with driver 580\.65\.06"),
        ("12.8", "535.104.05", r"CUDA 12\.8 does not start with driver 535\.104\.05"),
        ("13.0", None, "no NVIDIA driver was found; use machines with a driver of 580 or later"),
        (None, None, "is built without CUDA; install the packages of requirements.lock"),
    ],
)
def test_the_reason_is_one_line(
    cuda: str | None, driver: str | None, reason: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "version"
    if driver:
        file.write_text(DRIVER.format(driver))
    monkeypatch.setattr(devices, "_DRIVER_FILE", str(file))
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match=rf"torch sees no GPU on .*: .*{reason}.*; or use device=cpu$"):
        devices.device_for("cuda")
    assert devices.device_for("auto").type == "cpu"


def test_open_kernel_modules_name_their_driver_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build\n"
    (tmp_path / "version").write_text(text)
    monkeypatch.setattr(devices, "_DRIVER_FILE", str(tmp_path / "version"))
    assert devices._driver() == "570.86.15"
