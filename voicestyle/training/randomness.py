"""Random generators that depend on a key alone, so that neither resuming nor the number of workers changes a draw."""

from enum import IntEnum

import numpy as np
import torch


class Draw(IntEnum):
    """What is drawn. Two purposes with the same numbers get different generators."""

    ORDER = 1
    ITEM = 2
    NEGATIVES = 3
    BATCH = 4


def keyed_generator(draw: Draw, *key: int) -> torch.Generator:
    """A generator for a key of integers ≥ 0, for example (seed, epoch, index)."""
    state = np.random.SeedSequence((draw, *key)).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]) >> 1)  # torch takes signed integers


def random_below(limit: int, generator: torch.Generator) -> int:
    """Draw one of 0 … limit − 1."""
    return int(torch.randint(limit, (1,), generator=generator))
