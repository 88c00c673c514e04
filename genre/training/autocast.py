"""The floating-point type that a network computes in: bfloat16 where the device supports it natively, else float32."""

from __future__ import annotations

import torch
from torch import nn

from genre.model import layout


def autocast_type(dtype: str, device: torch.device, network: nn.Module) -> torch.dtype | None:
    """Return the type for `torch.autocast`, None for float32; `dtype` is the setting train.dtype."""
    if dtype == "bf16":
        return torch.bfloat16
    return torch.bfloat16 if dtype == "auto" and _computes_bf16(device, network) else None


def _computes_bf16(device: torch.device, network: nn.Module) -> bool:
    """Return whether `device` computes bfloat16 natively and safely.

    On CPUs it corrupted memory in ResNets of 4 and 8 channels, which `layout.safe` excludes.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    native = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    # oneDNN emulates instructions that ONEDNN_MAX_CPU_ISA forbids, ten times slower than float32
    native = native and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return bool(native and layout.safe(network))
