"""Frames out of videos, evenly spaced or in a fixed interval, read by PyAV (extra `videos`)."""

import math
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_PIXELS = 50_000_000  # of a frame
INDEXED = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"})  # FFmpeg's names of formats
DEFAULT_RATE = 25  # frames a second, where a file does not say when its frames are shown

Frame = tuple[int, NDArray[np.uint8]]


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
        if (self.count is not None and self.count < 1) or (
            self.seconds is not None and not 0 < self.seconds < math.inf
        ):
            raise ValueError(f"count must be at least 1 and seconds a finite number above 0, got {self}")

    def indices(self, times: list[Fraction]) -> list[int]:
        """The frames to take, by their index in the sorted `times` in seconds, without repetition."""
        if self.count is not None:
            count = min(self.count, len(times))
            return [(2 * number + 1) * len(times) // (2 * count) for number in range(count)]
        seconds = Fraction(self.seconds or 1)
        periods = [(time - times[0]) // seconds for time in times]
        return [0, *(index for index in range(1, len(times)) if periods[index] > periods[index - 1])]


def read_frames(path: Path, selection: Selection) -> Iterator[Frame]:
    """The selected frames of a video: index in the video from 0, and pixels uint8 RGB [H, W, 3], upright.

    In MP4, MOV, Matroska and WebM files, only what leads from a key frame to a selected frame is decoded. Other formats
    have no reliable timestamps or key frames: they are decoded twice, first to count. One frame at a time is in memory.

    Raises:
        VideoError: PyAV is missing, or the file is no video, is damaged, or has too large frames.
        OSError: the file cannot be opened.
    """
    av = require_av()
    with path.open("rb") as file:
        try:
            with av.open(file, metadata_errors="replace") as container:
                stream = _video_stream(container)
                if container.format.name in INDEXED:
                    yield from _by_seeking(container, stream, selection)
                    return
                times = [_time(frame, number) for number, frame in enumerate(container.decode(stream))]
            file.seek(0)
            with av.open(file, metadata_errors="replace") as container:
                yield from _in_order(container.decode(_video_stream(container)), _selected(selection, times))
        except (av.error.FFmpegError, OSError) as error:  # also of seeking and reading in a damaged file
            raise VideoError(f"must be a video that FFmpeg reads: {error.strerror or error}") from None


def require_av() -> ModuleType:
    """The module `av`. Raises VideoError that names the extra if PyAV is not installed."""
    try:
        import av
    except ModuleNotFoundError:
        raise VideoError("videos are read by PyAV: pip install 'voicestyle[videos]'") from None
    return av


def _video_stream(container: Any) -> Any:
    if not container.streams.video:
        raise VideoError("must have a video stream, received none")
    stream = container.streams.video[0]
    if stream.codec_context is None:
        raise VideoError("must have a codec that FFmpeg decodes")
    stream.thread_type = "AUTO"
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > MAX_PIXELS:
        limit = MAX_PIXELS // 1_000_000
        raise VideoError(f"frames must have at most {limit} megapixels, received {width}×{height}")
    return stream


def _selected(selection: Selection, times: list[Fraction]) -> list[int]:
    if not times:
        raise VideoError("must have at least one frame, received none")
    return selection.indices(times)


def _by_seeking(container: Any, stream: Any, selection: Selection) -> Iterator[Frame]:
    packets = [(packet.pts, packet.is_keyframe) for packet in container.demux(stream) if packet.size]
    stamps = sorted({stamp for stamp, _ in packets if stamp is not None})
    keys = sorted(stamp for stamp, is_key in packets if is_key and stamp is not None)
    decoder = _Decoder(container, stream, keys)
    for index in _selected(selection, [stamp * stream.time_base for stamp in stamps]):
        frame = decoder.first_from(stamps[index])
        if frame is None:
            raise VideoError(f"must be decodable, received a video that ends before frame {index} of {len(stamps)}")
        yield index, _pixels(frame)


def _in_order(frames: Iterator[Any], wanted: list[int]) -> Iterator[Frame]:
    remaining = iter(wanted)
    index = next(remaining, None)
    for number, frame in enumerate(frames):
        if number == index:
            yield number, _pixels(frame)
            index = next(remaining, None)
            if index is None:
                return


def _time(frame: Any, number: int) -> Fraction:
    """Seconds of the `number`-th frame; by its number where it has no timestamp."""
    return Fraction(number, DEFAULT_RATE) if frame.pts is None else frame.pts * frame.time_base


def _pixels(frame: Any) -> NDArray[np.uint8]:
    pixels = frame.to_ndarray(format="rgb24")
    return np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90)))


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
