"""Voice activity detection with WebRTC's detector: keep only speech, as in the training data of the encoders.

The detector adapts with every frame it classifies. The published code classifies both frames of each pair, so most
frames are classified twice. With one call per frame, the segments would differ from those of the published code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, cast

import numpy as np
import webrtcvad  # pyright: ignore[reportMissingTypeStubs]
from numpy.typing import NDArray

from cmpc2.audio import SAMPLE_RATE
from cmpc2.errors import AudioError

FRAME: Final = SAMPLE_RATE * 20 // 1000  # 320 samples, 20 ms


def speech_only(samples: NDArray[np.int16], mode: int = 2) -> NDArray[np.int16]:
    """Join the speech segments of a recording.

    `samples` [n] int16 at 16 kHz; `mode` 0 … 3 is WebRTC's aggressiveness (checkpoints expect 2). Returns [m] int16, a
    whole number of 20 ms frames. A segment starts with two consecutive voiced frames and ends with two consecutive
    unvoiced frames, all of which belong to it, or at the end of the recording.

    Raises `AudioError` `no_speech` if there is no segment; `ValueError` for another dtype, shape or mode.
    """
    if samples.dtype != np.int16 or samples.ndim != 1:
        raise ValueError(f"samples must be int16 [n]; received {samples.dtype} {list(samples.shape)}")
    if mode not in range(4):
        raise ValueError(f"mode must be 0, 1, 2 or 3; received {mode}")
    keep = _in_segment(samples, mode)
    if not keep.any():
        seconds = len(samples) / SAMPLE_RATE
        raise AudioError("no_speech", f"audio must contain speech; found none in {seconds:.2f} s")
    return samples[: len(keep) * FRAME].reshape(-1, FRAME)[keep].reshape(-1)


def _in_segment(samples: NDArray[np.int16], mode: int) -> NDArray[np.bool_]:
    """Whether each frame [m] belongs to a segment. The last frame is ignored unless at least one sample follows it."""
    is_speech = cast(Callable[[bytes, int, int], bool], cast(Any, webrtcvad).Vad(mode).is_speech)
    data = samples.tobytes()
    width = FRAME * samples.itemsize
    frames = [data[end - width : end] for end in range(width, len(data), width)]
    keep: list[bool] = []
    is_open = False
    start = 0  # first frame after the last start or end of a segment; pairs begin here
    for i, frame in enumerate(frames):
        keep.append(is_open)
        if i == start:
            is_speech(frame, SAMPLE_RATE, FRAME)
            continue
        # Always classify both frames: each call adapts the detector.
        earlier = is_speech(frames[i - 1], SAMPLE_RATE, FRAME)
        later = is_speech(frame, SAMPLE_RATE, FRAME)
        if earlier == later != is_open:
            keep[i - 1 :] = [True, True]
            is_open = later
            start = i + 1
    return np.array(keep, np.bool_)
