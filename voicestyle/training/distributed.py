"""Training on several processes (DistributedDataParallel, started by torchrun) with the results of a single one.

Each process encodes its part of the batch. The embeddings are gathered with their gradients, and every process computes
the same loss of the whole batch. Batch normalisation uses the statistics of the whole batch. So the losses, the memory
banks and the weights are those of one process with that batch, up to the rounding of sums in another order.
"""

import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from voicestyle.training.errors import TrainingError

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Ranks:
    """This process among all that train: its rank, their number (`world`) and its device. Default: a single process."""

    rank: int = 0
    world: int = 1
    device: torch.device = field(default=CPU)

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and clusters."""
        return self.rank == 0

    def part(self, count: int) -> slice:
        """This process's rows of a batch of `count`. Raises TrainingError unless `world` divides it."""
        if count % self.world:
            raise TrainingError(f"the batch must be a multiple of the {self.world} processes, received {count}")
        share = count // self.world
        return slice(self.rank * share, (self.rank + 1) * share)

    def gather(self, part: Tensor) -> Tensor:
        """Concatenate the processes' rows [n, …] to [world·n, …], with gradients."""
        return part if self.world == 1 else cast(Tensor, _Gather.apply(part, self))

    def from_first(self, value: Any) -> Any:
        """Return the first process's object of tensors, numbers and containers; of the others, `value` is ignored."""
        if self.world == 1:
            return value
        values = [value if self.is_first else None]
        dist.broadcast_object_list(values, src=0, device=self.device)
        return values[0]

    def wrap(self, model: nn.Module) -> nn.Module:
        """Share gradients and batch statistics of `model`, in place. With one process, return it unchanged."""
        if self.world == 1:
            return model
        if self.device.type == "cuda":
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        else:  # SyncBatchNorm supports accelerators only
            for module in model.modules():
                if type(module) is nn.BatchNorm2d:
                    module.__class__ = GlobalBatchNorm2d
        # Buffers need no broadcast: all processes compute the same batch statistics.
        return DistributedDataParallel(model, forward_sync_buffers=False)


@contextmanager
def process_group(device: str) -> Generator[Ranks]:
    """Join the processes that torchrun started (nccl on CUDA, gloo elsewhere); without torchrun, train alone.

    device: "cpu", or "cuda", of which each process takes the device of its local rank.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Ranks(device=torch.device(device))
        return
    here = torch.device(device)
    if here.type == "cuda":
        here = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(here)
    dist.init_process_group("nccl" if here.type == "cuda" else "gloo")
    try:
        yield Ranks(dist.get_rank(), world, here)
    finally:
        dist.destroy_process_group()


class _Gather(torch.autograd.Function):
    """All processes compute the same loss of all rows, so the gradient of the own rows is complete without a sum.

    DistributedDataParallel averages the gradients of the weights, but their sum is needed: hence the factor `world`.
    """

    @staticmethod
    def forward(ctx: Any, part: Tensor, ranks: Ranks) -> Tensor:
        ctx.ranks, ctx.rows = ranks, len(part)
        parts = [torch.empty_like(part) for _ in range(ranks.world)]
        dist.all_gather(parts, part.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        rows = slice(ctx.ranks.rank * ctx.rows, (ctx.ranks.rank + 1) * ctx.rows)
        return gradients[0][rows] * ctx.ranks.world, None


class _Sum(torch.autograd.Function):
    """Sum over the processes. Every process uses the sum, so its gradient is the sum of their gradients."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


class GlobalBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation with the statistics of all processes' rows, on any backend. Same parameters and buffers."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """Normalise [N, C, H, W]; the batch of all processes has world·N rows."""
        if not self.training:
            return super().forward(input)
        x = input if input.dtype == torch.float64 else input.float()
        count = dist.get_world_size() * x.numel() // x.shape[1]
        mean = cast(Tensor, _Sum.apply(x.sum((0, 2, 3)))) / count
        centred = x - mean.view(1, -1, 1, 1)
        variance = cast(Tensor, _Sum.apply(centred.square().sum((0, 2, 3)))) / count
        self._remember(mean.detach(), variance.detach() * count / max(1, count - 1))
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)).to(input.dtype)

    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        momentum = cast(float, self.momentum)
        cast(Tensor, self.num_batches_tracked).add_(1)
        cast(Tensor, self.running_mean).lerp_(mean, momentum)
        cast(Tensor, self.running_var).lerp_(variance, momentum)
