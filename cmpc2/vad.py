"""Speech only: what the encoders were trained on, cut out by the WebRTC voice activity detector.

The detector adapts with every frame that it is asked about, and the published code asks about both frames of
a pair each time: most frames twice. Asked once a frame it gives other segments, and checkpoints and reference
vectors know those of the published order.
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
    """Joins the speech segments of a recording.

    `samples` [n] int16 at 16 kHz; `mode` 0 … 3 is WebRTC's aggressiveness (checkpoints expect 2). Returns [m]
    int16, a whole number of 20 ms frames. Two successive voiced frames open a segment, which they belong to;
    two successive unvoiced ones, kept as well, close it; the end of the recording closes the last.

    Raises `AudioError` `no_speech` if no segment opens; `ValueError` for another dtype, shape or mode.
    """
    if samples.dtype != np.int16 or samples.ndim != 1:
        raise ValueError(f"samples must be int16 [n]; received {samples.dtype} {list(samples.shape)}")
    if mode not in range(4):
        raise ValueError(f"mode must be 0, 1, 2 or 3; received {mode}")
    keep = _in_segment(samples, mode)
    if not keep.any():
        seconds = len(samples) / SAMPLE_RATE
        raise AudioError("no_speech", f"audio must contain speech; none was found in {seconds:.2f} s")
    return samples[: len(keep) * FRAME].reshape(-1, FRAME)[keep].reshape(-1)


def _in_segment(samples: NDArray[np.int16], mode: int) -> NDArray[np.bool_]:
    """Which frames [m] to keep; only a frame that at least one sample follows counts."""
    is_speech = cast(Callable[[bytes, int, int], bool], cast(Any, webrtcvad).Vad(mode).is_speech)
    data = samples.tobytes()
    width = FRAME * samples.itemsize
    frames = [data[end - width : end] for end in range(width, len(data), width)]
    keep: list[bool] = []
    is_open = False
    start = 0  # no pair reaches back over the frame that opened or closed a segment
    for i, frame in enumerate(frames):
        keep.append(is_open)
        if i == start:
            is_speech(frame, SAMPLE_RATE, FRAME)
            continue
        # Both are asked whatever the first answers: each question adapts the detector.
        earlier = is_speech(frames[i - 1], SAMPLE_RATE, FRAME)
        later = is_speech(frame, SAMPLE_RATE, FRAME)
        if earlier == later != is_open:
            keep[i - 1 :] = [True, True]
            is_open = later
            start = i + 1
    return np.array(keep, np.bool_)
