"""The memory layout in which a network computes: channels last for speed, contiguous where channels last is unsafe."""

from __future__ import annotations

import torch
from torch import nn

_VECTOR = 16  # float32 values in the widest vectors of CPUs (AVX-512)


def arrange(network: nn.Module) -> None:
    """Convert the weights of `network` to the layout in which it computes.

    Channels last is up to twice as fast on CPUs and on tensor cores, and gives the same values. A network that is not
    `safe` has the contiguous layout on every device, since a model from a GPU may be fine-tuned on a CPU.
    """
    layout = torch.channels_last if safe(network) else torch.contiguous_format
    network.to(memory_format=layout)  # type: ignore[call-overload]


def safe(network: nn.Module) -> bool:
    """Return whether torch 2.11 can train `network` with channels last on a CPU without corrupting memory.

    In the backward pass of a strided 1 x 1 convolution with channels last, oneDNN 3.10 writes the gradient of the input
    in full vectors (8 channels with AVX2, 16 with AVX-512): with fewer channels it writes beyond the tensor.
    `tests/contract/test_memory.py` reproduces the fault, and fails when torch no longer has it.
    """
    return not any(
        isinstance(layer, nn.Conv2d)
        and max(layer.kernel_size) == 1
        and max(layer.stride) > 1
        and layer.in_channels < _VECTOR
        for layer in network.modules()
    )
