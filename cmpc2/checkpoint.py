"""Published CMPC checkpoints: `{"model": state_dict, …}`, read as data only."""

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

# Left by the training: a projection behind the encoders, and the encoders a second time in front of it.
# CMPC compares what comes before the projection, so these cannot change an answer.
TRAINING_HEADS: Final = ("projnet.", "voice_subnet_proj.", "face_subnet_proj.")


def load(path: str | Path, voice: ResNetConfig | None = None, face: ResNetConfig | None = None) -> CMPC:
    """Reads a CMPC checkpoint into a model in eval mode, float32, on the CPU.

    The file is `{"model": state_dict, …}`, its keys with or without the `module.` prefix of a model trained
    on several GPUs. `voice` and `face` default to ResNet-34. Projection heads of the training
    (`TRAINING_HEADS`) are skipped with a warning in the log.

    Raises `CheckpointError` that names what is missing, left over or of another shape, also for a file that
    torch cannot read with `weights_only=True`; `OSError` for a path that cannot be opened.
    """
    weights = _without_heads(path, read_state_dict(path, "model"))
    model = CMPC(voice, face)
    shapes = {key: list(value.shape) for key, value in model.state_dict().items()}
    check_weights(path, weights, shapes, "must hold exactly the weights of both encoders")
    model.load_state_dict(weights)
    return model.eval()


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Reads a dictionary from a torch file, tensors on the CPU.

    Raises `CheckpointError` for any other content, `OSError` for a path that cannot be opened.
    """
    # Training scripts like to keep their options beside the weights; a Namespace is plain data.
    with Path(path).open("rb") as file, torch.serialization.safe_globals([argparse.Namespace]):
        try:
            content: object = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # parsing foreign bytes fails in more ways than can be listed
            reason = str(error).strip().split("\n")[0] or type(error).__name__
            raise CheckpointError(f"{path} must be a torch file of plain tensors: {reason}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} must hold a dictionary; received {type(content).__name__}")
    return cast(dict[str, Any], content)


def read_state_dict(path: str | Path, name: str) -> dict[str, Tensor]:
    """Reads the weights in `{name: state_dict, …}`, without the `module.` of a model trained on several GPUs.

    Raises `CheckpointError` for any other content, `OSError` for a path that cannot be opened.
    """
    content = read_checkpoint(path)
    if not isinstance(content.get(name), Mapping):
        raise CheckpointError(f'{path} must be {{"{name}": state_dict, …}}; its keys are {_some(content)}')
    weights = cast(Mapping[Any, Any], content[name])
    odd = [key for key, value in weights.items() if not (isinstance(key, str) and isinstance(value, Tensor))]
    if odd:
        raise CheckpointError(f"{path}: every weight must be a named tensor; not so {_some(odd)}")
    prefix = "module." if all(key.startswith("module.") for key in weights) else ""
    return {key.removeprefix(prefix): value for key, value in weights.items()}


def _without_heads(path: str | Path, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    heads = [key for key in weights if key.startswith(TRAINING_HEADS)]
    if heads:
        log.warning("%s: skipped the training's projection heads: %s", path, _some(heads))
    return {key: value for key, value in weights.items() if not key.startswith(TRAINING_HEADS)}


def check_weights(
    path: str | Path, weights: Mapping[str, Tensor], expected: Mapping[str, Sequence[int]], rule: str
) -> None:
    """Raises `CheckpointError`, with `rule`, unless `weights` are finite and have the names and shapes expected."""
    both = [key for key in expected if key in weights]
    faults = {
        "missing": [key for key in expected if key not in weights],
        "left over": [key for key in weights if key not in expected],
        "of another shape": [
            f"{key} {list(weights[key].shape)} instead of {list(expected[key])}"
            for key in both
            if list(weights[key].shape) != list(expected[key])
        ],
        "not finite": [key for key in both if not weights[key].isfinite().all()],
    }
    if any(faults.values()):
        told = "; ".join(f"{name}: {_some(keys)}" for name, keys in faults.items() if keys)
        raise CheckpointError(f"{path} {rule}. {told}")


def _some(keys: Sequence[Any] | Mapping[Any, Any], limit: int = 8) -> str:
    names = [str(key) for key in keys]
    told = ", ".join(names[:limit]) or "none"
    return told if len(names) <= limit else f"{told} and {len(names) - limit} more"
