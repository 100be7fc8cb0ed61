"""All options of CMPC's training, and their file."""

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, cast, get_type_hints

import msgspec

from cmpc2 import ResNetConfig
from voicestyle.training.cmpc import CmpcOptions
from voicestyle.training.errors import TrainingError
from voicestyle.training.trainer import LoopOptions
from voicestyle.training.video_batches import DataOptions

Options = TypeVar("Options")


@dataclass(frozen=True)
class TrainingOptions:
    """All options of a training; each part checks itself.

    seed: of the weights, the order and the draws. augment: vary colour, light and position of the faces and mask parts
    of the voices; off, as in CMPC's own training. memory_images: images per video that the memory file averages.
    """

    data: DataOptions = field(default_factory=DataOptions)
    objective: CmpcOptions = field(default_factory=CmpcOptions)
    loop: LoopOptions = field(default_factory=LoopOptions)
    voice: ResNetConfig = field(default_factory=ResNetConfig)
    face: ResNetConfig = field(default_factory=ResNetConfig)
    seed: int = 0
    augment: bool = False
    memory_images: int = 4

    def __post_init__(self) -> None:
        if self.seed < 0 or self.memory_images < 1:
            raise TrainingError(
                f"seed must be at least 0 and memory_images at least 1, received {self.seed} and {self.memory_images}"
            )
        if self.voice.embedding_dim != self.face.embedding_dim:
            raise TrainingError(
                "voice and face must have the same embedding_dim, received "
                f"{self.voice.embedding_dim} and {self.face.embedding_dim}"
            )


def read_options(path: Path) -> TrainingOptions:
    """Read options from a JSON file: objects nested as in `TrainingOptions`; what it lacks keeps its default.

    Raises TrainingError for a file that is not JSON, an unknown name (the error names the nearest known one), and a
    value of another type or out of range; OSError for a file that cannot be opened.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise TrainingError(f"{path} must be JSON: {error}") from error
    if not isinstance(content, dict):
        raise TrainingError(f"{path} must be a JSON object, received {type(content).__name__}")
    return changed(TrainingOptions(), cast(dict[str, Any], content))


def changed(options: Options, changes: Mapping[str, Any], prefix: str = "") -> Options:
    """A copy of a dataclass with nested changes by name. Raises TrainingError as `read_options`."""
    assert is_dataclass(options)
    hints = get_type_hints(type(options))
    values = {each.name: getattr(options, each.name) for each in fields(options)}
    for name, value in changes.items():
        if name not in values:
            nearest = difflib.get_close_matches(name, values, n=1, cutoff=0)[0]
            raise TrainingError(f"unknown option {prefix}{name}; the nearest known one is {prefix}{nearest}")
        if is_dataclass(values[name]) and isinstance(value, Mapping):
            values[name] = changed(values[name], cast(Mapping[str, Any], value), f"{prefix}{name}.")
            continue
        try:
            values[name] = msgspec.convert(value, hints[name])
        except msgspec.ValidationError as error:
            raise TrainingError(f"option {prefix}{name}: {error}") from error
    try:
        return type(options)(**values)
    except ValueError as error:
        raise TrainingError(f"options {prefix.rstrip('.') or 'of the training'}: {error}") from error
