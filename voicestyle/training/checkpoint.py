"""Training checkpoints: equal states give equal bytes, and a half-written file never replaces a whole one."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from cmpc2 import CheckpointError
from cmpc2.checkpoint import read_checkpoint
from voicestyle.training.errors import TrainingError
from voicestyle.whole_files import whole_file


def write_atomically(path: Path, content: dict[str, Any]) -> None:
    """Write `content` of tensors, numbers, strings and containers."""
    with whole_file(path) as draft, draft.open("wb") as file:  # given a path, torch.save would store its name
        torch.save(_canonical(content), file)


def read_state(path: Path, keys: set[str], description: Mapping[str, Any]) -> dict[str, Any]:
    """Read a training checkpoint with `keys`, whose description must equal `description`.

    Raises CheckpointError for another file, TrainingError for one of other options or data.
    """
    state = read_checkpoint(path)
    if not keys <= state.keys():
        raise CheckpointError(f"{path} must be a checkpoint of a training, with {sorted(keys)}; it has {sorted(state)}")
    theirs, ours = _flat(state["description"]), _flat(description)
    differing = sorted(name for name in theirs.keys() | ours.keys() if theirs.get(name) != ours.get(name))
    if differing:
        raise TrainingError(
            f"{path} was made with other options ({', '.join(differing)}): use the same options or delete it"
        )
    return state


def _canonical(value: Any) -> Any:
    """Copy `value` so that its pickle depends on its content alone.

    Pickle writes an object that occurs twice as a reference. After a resume, equal strings and tensors may be other
    objects than before it.
    """
    if isinstance(value, Tensor):
        return value.detach().to("cpu").clone(memory_format=torch.contiguous_format)
    if isinstance(value, str):
        return sys.intern(value)
    if isinstance(value, Mapping):
        items = cast(Mapping[Any, Any], value)
        return {_canonical(key): _canonical(each) for key, each in items.items()}
    if isinstance(value, list | tuple):
        copied = [_canonical(each) for each in cast(list[Any], value)]
        return copied if isinstance(value, list) else tuple(copied)
    return value


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, each in value.items():
        if isinstance(each, Mapping):
            flat |= _flat(cast(Mapping[str, Any], each), f"{prefix}{name}.")
        else:
            flat[prefix + name] = each
    return flat
