"""Recording conditions: a clean recording as a telephone, a noisy room or a codec would deliver it.

Each condition takes samples [n], int16, 16 kHz, mono, and a generator of random numbers, and returns such samples. The
length stays n, except for `faster` and `slower`. The same samples and an equal generator give the same result.
"""

import io
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, TypeVar, cast

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from cmpc2.audio import FULL_SCALE, SAMPLE_RATE

Kind = TypeVar("Kind", np.int16, np.float64)
Samples = NDArray[np.int16]
Condition = Callable[[Samples, np.random.Generator], Samples]

TELEPHONE_RATE: Final = 8_000  # Hz
TELEPHONE_BAND: Final = (300.0, 3_400.0)  # Hz, of ITU-T G.712
BAND_EDGE: Final = 100.0  # Hz over which the gain falls to 0 outside the band
NOISE_SNR: Final = 15.0  # dB
NOISE_CUTOFF: Final = 50.0  # Hz; below, pink noise would be a rumble that no microphone for speech records
RT60: Final = (0.3, 0.5)  # seconds until the reverberation has fallen by 60 dB; 0.4 in the mean
DIRECT_TO_REVERBERANT: Final = (0.0, 6.0)  # dB, of a speaker at one or two metres
EARLIEST_REFLECTION: Final = 0.002  # seconds after the direct sound
SPEED: Final = 1.05
# libsndfile's compression levels; of its range of bit rates at 16 kHz mono, 8 to 160 and 6 to 256 kbit/s.
MP3_LEVEL: Final = 0.9  # 24 kbit/s
OPUS_LEVEL: Final = 0.984  # 10 kbit/s
MP3_DELAY: Final = 1_105  # samples: 576 of the encoder and 529 of the decoder


def telephone(samples: Samples, source: np.random.Generator) -> Samples:
    """The band of a telephone line at 8 kHz, coded with mu-law (ITU-T G.711)."""
    del source
    narrow = soxr.resample(_to_float(samples), SAMPLE_RATE, TELEPHONE_RATE)
    frequencies = np.fft.rfftfreq(len(narrow), 1 / TELEPHONE_RATE)
    low, high = TELEPHONE_BAND
    outside = np.maximum(low - frequencies, frequencies - high).clip(0, BAND_EDGE) / BAND_EDGE
    gain = np.cos(np.pi / 2 * outside) ** 2
    band = np.fft.irfft(np.fft.rfft(narrow) * gain, len(narrow))
    coded = _coded(_to_int16(band), TELEPHONE_RATE, "WAV", "ULAW")
    return _to_int16(_of_length(soxr.resample(_to_float(coded), TELEPHONE_RATE, SAMPLE_RATE), len(samples)))


def noise(samples: Samples, source: np.random.Generator) -> Samples:
    """Pink noise, as of a room, 15 dB below the mean power of the recording."""
    spectrum = np.fft.rfft(source.standard_normal(len(samples)))
    frequencies = np.fft.rfftfreq(len(samples), 1 / SAMPLE_RATE)
    pink = np.fft.irfft(spectrum / np.sqrt(np.maximum(frequencies, NOISE_CUTOFF)), len(samples))
    clean = _to_float(samples)
    return _to_int16(clean + pink * (_level(clean) / max(_level(pink), 1e-12) * 10 ** (-NOISE_SNR / 20)))


def reverberation(samples: Samples, source: np.random.Generator) -> Samples:
    """A synthetic room: the direct sound and Gaussian noise that decays exponentially (J.-D. Polack, 1988).

    The reverberation time and the level of the direct sound are drawn; the power of the recording stays.
    """
    rt60, ratio = source.uniform(*RT60), source.uniform(*DIRECT_TO_REVERBERANT)
    times = np.arange(round(rt60 * SAMPLE_RATE)) / SAMPLE_RATE
    tail = source.standard_normal(len(times)) * 10 ** (-3 * times / rt60)
    tail[times < EARLIEST_REFLECTION] = 0
    response = tail / np.sqrt(np.sum(tail**2) * 10 ** (ratio / 10))
    response[0] = 1
    clean = _to_float(samples)
    size = len(clean) + len(response)
    wet = np.fft.irfft(np.fft.rfft(clean, size) * np.fft.rfft(response, size), size)[: len(clean)]
    return _to_int16(wet * (_level(clean) / max(_level(wet), 1e-12)))


def mp3(samples: Samples, source: np.random.Generator) -> Samples:
    """MP3 at 24 kbit/s, by libsndfile's encoder (LAME)."""
    del source
    coded = _coded(samples, SAMPLE_RATE, "MP3", "MPEG_LAYER_III", MP3_LEVEL, "CONSTANT")
    # Frames of low bit rates have no room for the tag that names the delay, so the decoder leaves it in.
    return _of_length(coded[MP3_DELAY:] if len(coded) >= len(samples) + MP3_DELAY else coded, len(samples))


def opus(samples: Samples, source: np.random.Generator) -> Samples:
    """Opus at 10 kbit/s, by libsndfile's encoder."""
    del source
    return _of_length(_coded(samples, SAMPLE_RATE, "OGG", "OPUS", OPUS_LEVEL), len(samples))


def faster(samples: Samples, source: np.random.Generator) -> Samples:
    """5 % faster and so much higher."""
    del source
    return _to_int16(soxr.resample(_to_float(samples), SAMPLE_RATE * SPEED, SAMPLE_RATE))


def slower(samples: Samples, source: np.random.Generator) -> Samples:
    """5 % slower and so much lower."""
    del source
    return _to_int16(soxr.resample(_to_float(samples), SAMPLE_RATE * (2 - SPEED), SAMPLE_RATE))


def _checked(condition: Condition) -> Condition:
    def apply(samples: Samples, source: np.random.Generator) -> Samples:
        if samples.dtype != np.int16 or samples.ndim != 1 or not len(samples):
            raise ValueError(f"samples must be int16 [n], n >= 1, got {samples.dtype} {list(samples.shape)}")
        return condition(samples, source)

    return apply


# Each raises ValueError for samples that are not int16 [n] with n >= 1.
CONDITIONS: Final[Mapping[str, Condition]] = MappingProxyType(
    {each.__name__: _checked(each) for each in (telephone, noise, reverberation, mp3, opus, faster, slower)}
)


def _coded(
    samples: Samples,
    rate: int,
    file_format: str,
    subtype: str,
    compression_level: float | None = None,
    bitrate_mode: str | None = None,
) -> Samples:
    """The samples after an encoder and its decoder."""
    file = io.BytesIO()
    soundfile.write(
        file,
        samples,
        rate,
        format=file_format,
        subtype=subtype,
        compression_level=compression_level,
        bitrate_mode=bitrate_mode,
    )
    file.seek(0)
    return cast(Samples, soundfile.read(file, dtype="int16")[0])


def _to_float(samples: Samples) -> NDArray[np.float64]:
    return samples.astype(np.float64) / FULL_SCALE


def _to_int16(samples: NDArray[np.float64]) -> Samples:
    return np.rint(samples * FULL_SCALE).clip(-FULL_SCALE, FULL_SCALE - 1).astype(np.int16)


def _of_length(samples: NDArray[Kind], length: int) -> NDArray[Kind]:
    """The first samples; zeros follow where there are too few."""
    return np.pad(samples[:length], (0, max(0, length - len(samples))))


def _level(samples: NDArray[np.float64]) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(samples**2)))
