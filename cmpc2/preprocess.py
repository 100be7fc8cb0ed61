"""Convert files to encoder inputs. As in the published package, each factory returns a function of one file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cmpc2.audio import decode
from cmpc2.log_mel import BANDS, MIN_FRAMES, log_mel
from cmpc2.vad import speech_only

Recording = bytes | str | Path
Picture = str | Path | Image.Image


def audio_preprocess(valid_level: int = 2, min_time: int = MIN_FRAMES) -> Callable[[Recording], Tensor]:
    """Return a function from a recording (path or bytes) to its log-mel [1, 64, T] float32, T ≥ `min_time` frames.

    `valid_level` is the mode 0 … 3 of the voice activity detector. The function raises `AudioError` (`not_audio`,
    `no_speech`), or `OSError` for a path that cannot be opened.
    """

    def preprocess(source: Recording) -> Tensor:
        return torch.as_tensor(log_mel(speech_only(decode(source), valid_level), min_time))

    return preprocess


def visual_preprocess(img_size: int = 224) -> Callable[[Picture], Tensor]:
    """Return a function from an image (path or PIL image) to [3, img_size, img_size] float32 RGB in [-1, 1].

    Images are resized by bicubic interpolation without keeping their aspect ratio, as published. The function raises
    `PIL.UnidentifiedImageError` (an `OSError`) for a file that is not an image.
    """
    if img_size < 1:
        raise ValueError(f"img_size must be at least 1 pixel; received {img_size}")

    def preprocess(source: Picture) -> Tensor:
        if not isinstance(source, Image.Image):
            with Image.open(source) as image:
                return preprocess(image)
        pixels = np.asarray(source.convert("RGB").resize((img_size, img_size)), dtype=np.float32)
        return torch.as_tensor(np.ascontiguousarray(((pixels - 127.5) / 127.5).transpose(2, 0, 1)))

    return preprocess


def load_voice(min_time: int = MIN_FRAMES) -> Callable[[str | Path], Tensor]:
    """Return a function from a saved log-mel (.npy, [T, 64] as published) to [1, 64, max(T, min_time)] float32.

    A shorter array is repeated up to `min_time` frames. The result is deterministic, while the published function takes
    `min_time` frames at random and fails on a shorter array. Values are not normalised again. The function raises
    `ValueError` for another shape or a file that is not a numeric .npy array.
    """

    def load(path: str | Path) -> Tensor:
        with Path(path).open("rb") as file:  # np.load accepts archives and raises EOFError, too
            frames = np.lib.format.read_array(file, allow_pickle=False)
        if frames.ndim != 2 or frames.shape[1] != BANDS or len(frames) == 0:
            raise ValueError(f"{path} must contain frames [T, {BANDS}], T ≥ 1; received {list(frames.shape)}")
        if len(frames) < min_time:
            frames = frames[np.arange(min_time) % len(frames)]
        return torch.as_tensor(np.ascontiguousarray(frames.T, dtype=np.float32))[None]

    return load
