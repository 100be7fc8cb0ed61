"""The rows of a running batch: preallocated tensors whose live items stand together at the front.

Bookkeeping only: which id lives in which row, and at which step. What they mean is the engine's affair.
"""

from collections.abc import Hashable
from dataclasses import dataclass

import torch
from torch import Tensor

from voicestyle.engine.schedule import Schedule


@dataclass
class Item:
    """One live request: where it is and how far."""

    row: int
    steps: int
    schedule: Schedule
    step: int = 0
    largest_batch: int = 0  # most requests that were live during one of its steps
    last: int = 0  # when it last took a step, in steps of the whole engine


class Rows:
    """Tensors [capacity, ...] that keep the live items in rows 0 … live − 1.

    Raises ValueError for an id that is already live, KeyError for one that is not, RuntimeError when full.
    """

    def __init__(self, capacity: int, device: torch.device) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1, got {capacity}")
        self.capacity = capacity
        self.device = device
        self.items: dict[Hashable, Item] = {}
        self._tensors: list[Tensor] = []
        self._ids: list[Hashable] = []

    def allocate(self, *shape: int, dtype: torch.dtype) -> Tensor:
        """A zeroed tensor [capacity, *shape] whose rows move with their items."""
        tensor = torch.zeros((self.capacity, *shape), dtype=dtype, device=self.device)
        self._tensors.append(tensor)
        return tensor

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, key: Hashable, steps: int, schedule: Schedule) -> Item:
        """Give `key` the next free row, all its values zero."""
        if key in self.items:
            raise ValueError(f"id {key!r} is already in the batch")
        if len(self) == self.capacity:
            raise RuntimeError(f"the batch is full: {self.capacity} requests are live")
        item = Item(row=len(self), steps=steps, schedule=schedule)
        self._ids.append(key)
        self.items[key] = item
        for tensor in self._tensors:
            tensor[item.row].zero_()
        return item

    def remove(self, key: Hashable) -> Item:
        """Free the row of `key`; the last live item moves into it."""
        item = self.items.pop(key)
        last = self._ids.pop()
        if last != key:
            moved = self.items[last]
            for tensor in self._tensors:
                tensor[item.row].copy_(tensor[moved.row])
            moved.row = item.row
            self._ids[item.row] = last
        return item

    def in_order(self) -> list[tuple[Hashable, Item]]:
        """Ids and items by row."""
        return [(key, self.items[key]) for key in self._ids]
