"""Read published CMPC checkpoints, `{"model": state_dict, …}`, without executing code from them."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

import torch
from torch import Tensor

from cmpc2.errors import CheckpointError
from cmpc2.model import CMPC
from cmpc2.resnet import ResNetConfig

log = logging.getLogger(__name__)

# Used only in training: a projection of the embeddings, and copies of the encoders in front of it. CMPC compares the
# embeddings before the projection, so these weights do not affect results.
TRAINING_HEADS: Final = ("projnet.", "voice_subnet_proj.", "face_subnet_proj.")


def load(path: str | Path, voice: ResNetConfig | None = None, face: ResNetConfig | None = None) -> CMPC:
    """Read a CMPC checkpoint into a model in eval mode, float32, on the CPU.

    The file is `{"model": state_dict, …}`; the keys may have the prefix `module.` of multi-GPU training. `voice` and
    `face` default to ResNet-34. Projection heads (`TRAINING_HEADS`) are skipped with a warning in the log.

    Raises `CheckpointError` for a file that torch cannot read with `weights_only=True`, and for missing, unexpected,
    misshapen or non-finite weights, which the message names; `OSError` for a path that cannot be opened.
    """
    weights = _without_heads(path, read_state_dict(path, "model"))
    model = CMPC(voice, face)
    shapes = {key: list(value.shape) for key, value in model.state_dict().items()}
    check_weights(path, weights, shapes, "must contain exactly the weights of both encoders")
    model.load_state_dict(weights)
    return model.eval()


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a dictionary from a torch file, with tensors on the CPU.

    Raises `CheckpointError` for any other content, `OSError` for a path that cannot be opened.
    """
    # Training scripts often store their options, an argparse.Namespace, next to the weights. It is plain data.
    with Path(path).open("rb") as file, torch.serialization.safe_globals([argparse.Namespace]):
        try:
            content: object = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # damaged files raise many different exceptions
            reason = str(error).strip().split("\n")[0] or type(error).__name__
            raise CheckpointError(f"{path} must be a torch file of plain tensors: {reason}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} must contain a dictionary; received {type(content).__name__}")
    return cast(dict[str, Any], content)


def read_state_dict(path: str | Path, name: str) -> dict[str, Tensor]:
    """Read the weights in `{name: state_dict, …}` and remove the key prefix `module.` of multi-GPU training.

    Raises `CheckpointError` for any other content, `OSError` for a path that cannot be opened.
    """
    content = read_checkpoint(path)
    if not isinstance(content.get(name), Mapping):
        raise CheckpointError(f'{path} must be {{"{name}": state_dict, …}}; its keys are {_first(content)}')
    weights = cast(Mapping[Any, Any], content[name])
    odd = [key for key, value in weights.items() if not (isinstance(key, str) and isinstance(value, Tensor))]
    if odd:
        raise CheckpointError(f"{path}: every weight must be a tensor with a name; received {_first(odd)}")
    prefix = "module." if all(key.startswith("module.") for key in weights) else ""
    return {key.removeprefix(prefix): value for key, value in weights.items()}


def _without_heads(path: str | Path, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    heads = [key for key in weights if key.startswith(TRAINING_HEADS)]
    if heads:
        log.warning("%s: skipped projection heads, which only training uses: %s", path, _first(heads))
    return {key: value for key, value in weights.items() if not key.startswith(TRAINING_HEADS)}


def check_weights(
    path: str | Path, weights: Mapping[str, Tensor], expected: Mapping[str, Sequence[int]], rule: str
) -> None:
    """Raise `CheckpointError` with `rule` unless `weights` are finite and have the expected names and shapes."""
    both = [key for key in expected if key in weights]
    faults = {
        "missing": [key for key in expected if key not in weights],
        "unexpected": [key for key in weights if key not in expected],
        "wrong shape": [
            f"{key} {list(weights[key].shape)} instead of {list(expected[key])}"
            for key in both
            if list(weights[key].shape) != list(expected[key])
        ],
        "not finite": [key for key in both if not weights[key].isfinite().all()],
    }
    if any(faults.values()):
        found = "; ".join(f"{name}: {_first(keys)}" for name, keys in faults.items() if keys)
        raise CheckpointError(f"{path} {rule}. {found}")


def _first(keys: Sequence[Any] | Mapping[Any, Any], limit: int = 8) -> str:
    names = [str(key) for key in keys]
    listed = ", ".join(names[:limit]) or "none"
    return listed if len(names) <= limit else f"{listed} and {len(names) - limit} more"
