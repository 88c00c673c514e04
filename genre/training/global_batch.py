"""Make a step of several workers equal to a step of one worker with the complete batch.

The values of all workers are gathered, and the statistics of batch norm are those of all of them.

Averaged gradients suffice where the loss is a mean over windows and batch norm may normalise each worker's share by
itself. A loss that compares windows needs those of all workers. If each worker normalised its own share, the statistics
would also tell which windows are of the same worker, and so which can be a pair (Chen et al., arXiv 2002.05709, 2.2).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.modules.batchnorm import _BatchNorm

from genre.features.windows import Worker


def gathered(values: Tensor, worker: Worker) -> Tensor:
    """Return the values of all workers, (world * n, ...), in the order of their ranks; all have to call this.

    `values` are (n, ...), equally many of each worker. The gradient that reaches a worker's own values is the sum of
    those of all workers.
    """
    if worker.world == 1:
        return values
    count = len(values)
    before = values.new_zeros((worker.rank * count, *values.shape[1:]))
    after = values.new_zeros(((worker.world - worker.rank - 1) * count, *values.shape[1:]))
    total: Tensor = all_reduce(torch.cat([before, values, after]))  # type: ignore[no-untyped-call]
    return total


class GlobalBatchNorm(_BatchNorm):
    """Batch norm over the complete batch of all workers, in training. Its state is that of torch's batch norm.

    torch.nn.SyncBatchNorm does this on GPUs only.
    """

    def __init__(self, local: _BatchNorm, world: int) -> None:
        """Take the parameters and statistics of `local`."""
        super().__init__(local.num_features, local.eps, local.momentum)
        self._world = world
        self.weight, self.bias = local.weight, local.bias
        self.running_mean, self.running_var = local.running_mean, local.running_var
        self.num_batches_tracked = local.num_batches_tracked

    def forward(self, x: Tensor) -> Tensor:
        axes = [0, *range(2, x.ndim)]
        values = x.float()
        count = self._world * values.numel() // values.shape[1]
        sums = torch.stack([values.sum(dim=axes), values.square().sum(dim=axes)])
        mean, square = all_reduce(sums) / count  # type: ignore[no-untyped-call]
        variance = (square - mean.square()).clamp(min=0)
        self._track(mean.detach(), variance.detach() * count / (count - 1))
        scale = self.weight * torch.rsqrt(variance + self.eps)
        shape = (1, -1, *(1 for _ in axes[1:]))
        normalised = values * scale.view(shape) + (self.bias - mean * scale).view(shape)
        output: Tensor = normalised.to(x.dtype)
        return output

    def _track(self, mean: Tensor, variance: Tensor) -> None:
        """Update the running statistics."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)
        self.num_batches_tracked.add_(1)


def normalise_over_workers(network: nn.Module, world: int) -> None:
    """Replace every batch norm in `network` by one over the batch of all workers; nothing changes for a single one."""
    if world == 1:
        return
    for name, module in list(network.named_modules()):
        if isinstance(module, _BatchNorm):
            network.set_submodule(name, GlobalBatchNorm(module, world))
