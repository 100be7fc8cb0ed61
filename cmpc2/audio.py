"""Audio in any container to what the front end hears: 16 kHz, mono, 16 bits.

Reading goes through libsndfile and resampling through soxr at its highest quality but one ("HQ"). Blocks of the
file are mixed down and resampled as they are read, so memory follows the length in seconds and not the rate
or the number of channels that a header claims.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from cmpc2.errors import CallerError

SAMPLE_RATE: Final = 16_000
FULL_SCALE: Final = 32_768  # int16 steps that libsndfile maps to 1.0
BLOCK_VALUES: Final = 1 << 20  # frames × channels read at a time


def decode(source: bytes | str | Path, *, max_seconds: float | None = None) -> NDArray[np.int16]:
    """Decodes a recording.

    `source` is the encoded file itself (bytes) or its path. Returns samples [n], int16, 16 kHz, the mean of the
    channels. 16-bit 16 kHz mono passes through bit for bit.

    Raises `CallerError`: `not_audio` if libsndfile cannot read the bytes, if they hold no samples or samples that
    are not finite; `too_long` if the recording lasts longer than `max_seconds`, which the header decides before
    anything is decoded. A path that cannot be opened raises `OSError`.
    """
    with _open(source) as file:
        rate = file.samplerate
        limit = None if max_seconds is None else int(max_seconds * rate)
        if limit is not None and file.frames > limit:
            raise _too_long(max_seconds, file.frames / rate)
        blocks: list[NDArray[np.int16]] = []
        resampler = None if rate == SAMPLE_RATE else soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32")
        frames = 0
        for mono in _mono_blocks(file):
            frames += len(mono)
            if limit is not None and frames > limit:  # a header may claim less than the file holds
                raise _too_long(max_seconds, frames / rate)
            blocks.append(_to_int16(mono if resampler is None else resampler.resample_chunk(mono)))
        if frames == 0:
            raise CallerError("not_audio", "audio must hold at least one sample; received a file with none")
        if resampler is not None:
            blocks.append(_to_int16(resampler.resample_chunk(np.zeros(0, np.float32), last=True)))
    return np.concatenate(blocks)


@contextmanager
def _open(source: bytes | str | Path) -> Iterator[soundfile.SoundFile]:
    if isinstance(source, bytes):
        if not source:
            raise CallerError("not_audio", "audio must not be empty; received 0 bytes")
        with _sound_file(io.BytesIO(source), f"{len(source)} bytes") as file:
            yield file
    else:
        # A descriptor and not the name: soundfile would take a name ending in .raw for headerless samples.
        with open(source, "rb") as handle:
            size = os.fstat(handle.fileno()).st_size
            with _sound_file(handle.fileno(), f"{size} bytes") as file:
                yield file


@contextmanager
def _sound_file(source: io.BytesIO | int, received: str) -> Iterator[soundfile.SoundFile]:
    try:
        file = soundfile.SoundFile(source, closefd=False)
    except soundfile.LibsndfileError as error:
        raise _not_audio(received, error) from error
    with file:
        try:
            yield file
        except soundfile.LibsndfileError as error:
            raise _not_audio(received, error) from error


def _mono_blocks(file: soundfile.SoundFile) -> Iterator[NDArray[np.float32]]:
    block_frames = max(1, BLOCK_VALUES // file.channels)
    while True:
        block = cast(NDArray[np.float32], cast(Any, file).read(block_frames, dtype="float32", always_2d=True))
        if len(block) == 0:
            return
        mono = block[:, 0] if file.channels == 1 else block.mean(axis=1)
        if not np.isfinite(mono).all():
            raise CallerError("not_audio", "every sample must be a finite number; received NaN or infinity")
        yield mono


def _to_int16(mono: NDArray[np.float32]) -> NDArray[np.int16]:
    return np.clip(np.rint(mono * np.float32(FULL_SCALE)), -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)


def _too_long(max_seconds: float | None, seconds: float) -> CallerError:
    return CallerError("too_long", f"audio may last at most {max_seconds:g} s; received {seconds:.1f} s")


def _not_audio(received: str, error: soundfile.LibsndfileError) -> CallerError:
    reason = error.error_string.strip().rstrip(".")
    return CallerError(
        "not_audio", f"audio must be in a format that libsndfile reads (wav, flac, ogg, mp3 …); received {received}: {reason}"
    )
