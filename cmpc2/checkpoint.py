"""Published CMPC checkpoints: `{"model": state_dict, …}`, read as data only."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast

import torch
from torch import Tensor

from cmpc2.errors import CheckpointError
from cmpc2.model import CMPC
from cmpc2.resnet import ResNetConfig

log = logging.getLogger(__name__)

# Of the training code: a projection after the encoders, and the encoders a second time in front of it. CMPC
# compares embeddings before the projection, so that these never change an answer.
TRAINING_HEADS: Final = ("projnet.", "voice_subnet_proj.", "face_subnet_proj.")


def load(path: str | Path, voice: ResNetConfig | None = None, face: ResNetConfig | None = None) -> CMPC:
    """Reads a CMPC checkpoint into a model in eval mode, float32, on the CPU.

    The file is `{"model": state_dict, …}`, every key with or without the `module.` prefix of a model trained on
    several GPUs. Projection heads of the training (`TRAINING_HEADS`) are skipped and logged; any other key that is
    missing, left over or of another shape raises `CheckpointError` naming it, as does a file that torch cannot read
    with `weights_only=True`. A path that cannot be opened raises `OSError`. `voice` and `face` default to ResNet-34.
    """
    weights = _without_heads(path, _state_dict(path))
    with torch.device("meta"):  # no time for random weights that are replaced at once
        model = CMPC(voice, face)
    _check(path, weights, model.state_dict())
    model.load_state_dict(_as_owned(weights), strict=True, assign=True)
    return model.eval()


def read_checkpoint(path: str | Path) -> Mapping[str, Any]:
    """The dictionary in a torch file, tensors on the CPU. Raises `CheckpointError` or, if it cannot open, `OSError`."""
    try:
        # Training scripts like to keep their options beside the weights; a Namespace is plain data.
        with torch.serialization.safe_globals([argparse.Namespace]):
            content: object = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # whatever a parser of foreign bytes may run into
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise CheckpointError(f"{path} must be a torch file readable with weights_only=True: {reason}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} must hold a dictionary; received {type(content).__name__}")
    return cast(dict[str, Any], content)


def _state_dict(path: str | Path) -> dict[str, Tensor]:
    content = read_checkpoint(path)
    weights = content.get("model")
    if not isinstance(weights, dict):
        raise CheckpointError(f'{path} must be {{"model": state_dict, …}}; its keys are {_some(list(content))}')
    weights = cast(dict[str, Any], weights)
    odd = [key for key, value in weights.items() if not isinstance(value, Tensor)]
    if odd:
        raise CheckpointError(f"{path}: every weight must be a tensor; not so {_some(odd)}")
    if weights and all(key.startswith("module.") for key in weights):
        weights = {key.removeprefix("module."): value for key, value in weights.items()}
    return weights


def _without_heads(path: str | Path, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    heads = [key for key in weights if key.startswith(TRAINING_HEADS)]
    if heads:
        log.warning("%s: skipped %d keys of training heads: %s", path, len(heads), _some(heads))
    return {key: value for key, value in weights.items() if not key.startswith(TRAINING_HEADS)}


def _check(path: str | Path, weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    missing = [key for key in expected if key not in weights]
    left_over = [key for key in weights if key not in expected]
    misshapen = [
        f"{key} {list(weights[key].shape)} instead of {list(expected[key].shape)}"
        for key in expected
        if key in weights and weights[key].shape != expected[key].shape
    ]
    faults = {"missing": missing, "left over": left_over, "of another shape": misshapen}
    if any(faults.values()):
        told = "; ".join(f"{name} {_some(keys)}" for name, keys in faults.items() if keys)
        raise CheckpointError(f"{path} must hold exactly the weights of both encoders: {told}")


def _as_owned(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.float() if value.is_floating_point() else value for key, value in weights.items()}


def _some(keys: list[Any], limit: int = 8) -> str:
    shown = ", ".join(str(key) for key in keys[:limit]) or "none"
    return shown if len(keys) <= limit else f"{shown} and {len(keys) - limit} more"
