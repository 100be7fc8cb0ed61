"""Frames out of videos, evenly spaced or in a fixed interval, read by PyAV (extra `videos`)."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_PIXELS = 50_000_000  # of a frame


class VideoError(ValueError):
    """A video that cannot be used, or the missing extra; the message is one line."""


@dataclass(frozen=True)
class Selection:
    """Which frames to take: `count` of them, evenly spaced, or one every `seconds`. Exactly one of the two is given."""

    count: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        if (self.count is None) == (self.seconds is None):
            raise ValueError(f"either count or seconds must be given, got {self}")
        if (self.count is not None and self.count < 1) or (self.seconds is not None and not self.seconds > 0):
            raise ValueError(f"count must be at least 1 and seconds more than 0, got {self}")

    def indices(self, times: list[Fraction]) -> list[int]:
        """The frames to take, by their index in the sorted `times` in seconds, without repetition."""
        if self.count is not None:
            count = min(self.count, len(times))
            return [(2 * number + 1) * len(times) // (2 * count) for number in range(count)]
        seconds, chosen = Fraction(self.seconds or 1), dict[int, None]()
        for number in range(int((times[-1] - times[0]) / seconds) + 1):
            chosen[bisect_left(times, times[0] + number * seconds)] = None
        return list(chosen)


def read_frames(path: Path, selection: Selection) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """The selected frames of a video: index in the video from 0, and pixels uint8 RGB [H, W, 3], upright.

    The packets are listed first, without decoding; then only what leads from a key frame to a selected frame is
    decoded. One frame at a time is in memory.

    Raises:
        VideoError: PyAV is missing, or the file is no video, is damaged or has no timestamps or too large frames.
        OSError: the file cannot be opened.
    """
    av = require_av()
    with path.open("rb") as file:
        try:
            with av.open(file) as container:
                yield from _frames(container, selection)
        except (av.error.FFmpegError, OSError) as error:  # also of seeking and reading in a damaged file
            raise VideoError(f"must be a video that FFmpeg reads: {error.strerror or error}") from None


def require_av() -> ModuleType:
    """The module `av`. Raises VideoError that names the extra if PyAV is not installed."""
    try:
        import av
    except ModuleNotFoundError:
        raise VideoError("videos are read by PyAV: pip install 'voicestyle[videos]'") from None
    return av


def _frames(container: Any, selection: Selection) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    if not container.streams.video:
        raise VideoError("must have a video stream, received none")
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > MAX_PIXELS:
        limit = MAX_PIXELS // 1_000_000
        raise VideoError(f"frames must have at most {limit} megapixels, received {width}×{height}")
    packets = [packet for packet in container.demux(stream) if packet.size]
    if not packets or any(packet.pts is None for packet in packets):
        raise VideoError("must have frames with timestamps, received none")
    stamps = sorted({packet.pts for packet in packets})
    keys = sorted(packet.pts for packet in packets if packet.is_keyframe)
    del packets
    wanted = selection.indices([stamp * stream.time_base for stamp in stamps])
    decoded = _Decoder(container, stream, keys)
    for index in wanted:
        frame = decoded.first_from(stamps[index])
        if frame is None:
            raise VideoError(f"must be decodable, received a video that ends before frame {index} of {len(stamps)}")
        pixels = frame.to_ndarray(format="rgb24")
        yield index, np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90)))


class _Decoder:
    """Decodes in the order of time, and jumps ahead to a key frame where one lies between here and the next target."""

    def __init__(self, container: Any, stream: Any, keys: list[int]) -> None:
        self._container, self._stream, self._keys = container, stream, keys
        self._position: int | None = None
        self._iterator: Iterator[Any] = iter(())

    def first_from(self, stamp: int) -> Any | None:
        """The first frame at or after `stamp`, which must not decrease; None at the end of the video."""
        before = bisect_right(self._keys, stamp)
        key = self._keys[before - 1] if before else None
        if self._position is None or (key is not None and key > self._position):
            self._container.seek(stamp if key is None else key, stream=self._stream)
            self._iterator = self._container.decode(self._stream)
        for frame in self._iterator:
            if frame.pts is not None and frame.pts >= stamp:
                self._position = frame.pts
                return frame
        return None
