"""The rows of a running batch: preallocated tensors whose items occupy the first rows, without gaps.

Bookkeeping alone: which item is in which row, and at which step. The engine knows what the tensors mean.
"""

import math
from collections.abc import Hashable
from dataclasses import dataclass

import torch
from torch import Tensor

from voicestyle.engine.schedule import Schedule

# Libraries of GPUs choose kernels by the alignment of addresses, up to this one. All rows have it, so that no bit of an
# item's result depends on its row.
ALIGNMENT = 256  # bytes


@dataclass
class Item:
    """One item: its row, the steps that it takes, by which schedule and prior, and those that it has taken."""

    row: int
    steps: int
    schedule: Schedule
    prior_weight: float = 0.0
    hold: bool = False
    step: int = 0


class Rows:
    """Tensors [capacity, ...] whose rows 0 … len − 1 are in use.

    Raises ValueError for a key that was added before, KeyError for an unknown one, RuntimeError when full.
    """

    def __init__(self, capacity: int, device: torch.device) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1, got {capacity}")
        self.capacity = capacity
        self.device = device
        self.items: dict[Hashable, Item] = {}
        self._tensors: list[Tensor] = []

    def allocate(self, *shape: int, dtype: torch.dtype) -> Tensor:
        """A tensor of zeros [capacity, *shape] whose rows move with their items; off the CPU, with aligned rows."""
        count, aligned = math.prod(shape), max(1, _alignment(self.device) // dtype.itemsize)
        padded = math.ceil(count / aligned) * aligned
        tensor = torch.zeros(self.capacity, padded, dtype=dtype, device=self.device)[:, :count].unflatten(1, shape)
        self._tensors.append(tensor)
        return tensor

    def __len__(self) -> int:
        return len(self.items)

    def add(self, key: Hashable, steps: int, schedule: Schedule, prior_weight: float = 0.0, hold: bool = False) -> Item:
        """Give `key` the next free row and set its values to zero."""
        if key in self.items:
            raise ValueError(f"item {key!r} is already in the batch")
        if len(self) == self.capacity:
            raise RuntimeError(f"the batch is full ({self.capacity} items)")
        item = Item(len(self), steps, schedule, prior_weight, hold)
        self.items[key] = item
        for tensor in self._tensors:
            tensor[item.row].zero_()
        return item

    def remove(self, key: Hashable) -> None:
        """Free the row of `key`; the item in the last row moves into it."""
        removed = self.items.pop(key)
        for moved in self.items.values():
            if moved.row == len(self):
                for tensor in self._tensors:
                    tensor[removed.row].copy_(tensor[moved.row])
                moved.row = removed.row


def _alignment(device: torch.device) -> int:
    """The alignment of rows in bytes."""
    return 1 if device.type == "cpu" else ALIGNMENT
