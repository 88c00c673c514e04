"""Collective operations of the workers of one training, except the averaging of gradients."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def sum_over_workers(values: Tensor) -> Tensor:
    """Return the sum of `values` over all workers, computed in place; all workers have to call this."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(values)
    return values


def gather(text: str) -> list[str]:
    """Return the texts of all workers, in the order of their ranks; all workers have to call this."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [text]
    texts = [""] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(texts, text)
    return texts


def average_batch_statistics(networks: list[nn.Module], workers: int) -> None:
    """Replace the running statistics of batch norm by their mean over the workers, so that all networks are equal."""
    buffers = [buffer for network in networks for buffer in network.buffers() if buffer.is_floating_point()]
    if workers == 1 or not buffers:
        return
    mean = sum_over_workers(torch.cat([buffer.flatten() for buffer in buffers])) / workers
    for buffer, part in zip(buffers, torch.split(mean, [buffer.numel() for buffer in buffers]), strict=True):
        buffer.copy_(part.view_as(buffer))
