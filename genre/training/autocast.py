"""The floating-point type that a network computes in: bfloat16 where the device is faster with it, else float32."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from genre.model import layout


def autocast_type(dtype: str, device: torch.device, network: nn.Module) -> torch.dtype | None:
    """Return the type for `torch.autocast`, None for float32; `dtype` is the setting train.dtype."""
    if dtype == "bf16":
        return torch.bfloat16
    return torch.bfloat16 if dtype == "auto" and _computes_bf16(device, network) else None


def _computes_bf16(device: torch.device, network: nn.Module) -> bool:
    """Return whether `device` computes bfloat16 faster than float32, and safely.

    On CPUs it corrupted memory in ResNets of 4 and 8 channels, which `layout.safe` excludes.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # oneDNN emulates instructions that ONEDNN_MAX_CPU_ISA forbids, ten times slower than float32
    is_native = is_faster_with_bf16(torch.cpu.get_capabilities()) and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return bool(is_native and layout.safe(network))


def is_faster_with_bf16(capabilities: Mapping[str, Any]) -> bool:
    """Return whether a CPU with these capabilities, as torch names them, is faster with bfloat16 than with float32.

    A Xeon whose virtual machine hides AMX trained six networks at 0.6 to 0.85 of their speed in float32 (docs/LOG.md,
    27 November 2026).
    """
    is_intel = str(capabilities.get("cpu_name", "")).startswith("Intel")
    return bool(capabilities.get("amx_bf16") or (capabilities.get("avx512_bf16") and not is_intel))
