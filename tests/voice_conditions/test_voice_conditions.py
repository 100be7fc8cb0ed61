"""Recording conditions: what each one does to level, band and length of a recording."""

import numpy as np
import pytest

from cmpc2 import decode
from voicestyle.voice_conditions import CONDITIONS, RT60

RATE = 16_000


def draw(seed=0):
    return np.random.default_rng(seed)


def tone(frequency, seconds=1.0):
    return np.rint(8000 * np.sin(2 * np.pi * frequency * np.arange(round(RATE * seconds)) / RATE)).astype(np.int16)


def level(samples):
    return np.sqrt(np.mean(samples.astype(np.float64) ** 2))


def frequency(samples):
    """Of the strongest component, in Hz."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return spectrum.argmax() * RATE / len(samples)


@pytest.fixture(scope="module")
def speech(samples):
    return decode(samples / "slt.wav")[: 3 * RATE]


@pytest.fixture(scope="module")
def samples(pytestconfig):
    return pytestconfig.rootpath / "samples"


def test_the_conditions():
    assert list(CONDITIONS) == ["telephone", "noise", "reverberation", "mp3", "opus", "faster", "slower"]


@pytest.mark.parametrize("name", CONDITIONS)
def test_equal_generators_give_equal_samples_and_the_input_stays(name, speech):
    before = speech.copy()
    one, other = (CONDITIONS[name](speech, draw()) for _ in range(2))
    assert one.dtype == np.int16
    assert np.array_equal(one, other)
    assert np.array_equal(speech, before)
    assert not np.array_equal(one, speech)
    if name != "telephone":  # its band leaves out the fundamental frequency, and with it half of the level
        assert level(one) == pytest.approx(level(speech), rel=0.1)
    length = {"faster": len(speech) / 1.05, "slower": len(speech) / 0.95}.get(name, len(speech))
    assert len(one) == pytest.approx(length, abs=1 if name in ("faster", "slower") else 0)


@pytest.mark.parametrize("name", ["noise", "reverberation"])
def test_drawn_conditions_depend_on_the_generator(name, speech):
    assert not np.array_equal(CONDITIONS[name](speech, draw(0)), CONDITIONS[name](speech, draw(1)))


@pytest.mark.parametrize("name", ["telephone", "mp3", "opus"])
def test_the_result_is_aligned_with_the_input(name, speech):
    """The cross-correlation is largest within a quarter of a millisecond."""
    size = 2 * len(speech)
    one, other = (
        np.fft.rfft(CONDITIONS[name](speech, draw()).astype(float), size),
        np.fft.rfft(speech.astype(float), size),
    )
    lag = np.fft.irfft(one * other.conj()).argmax()
    assert min(lag, size - lag) <= 4


@pytest.mark.parametrize(("hertz", "kept"), [(100, 0), (1000, 1), (3000, 1), (3800, 0), (6000, 0)])
def test_a_telephone_passes_its_band_alone(hertz, kept):
    sound = tone(hertz)
    assert level(CONDITIONS["telephone"](sound, draw())) / level(sound) == pytest.approx(kept, abs=0.02)


def test_the_noise_is_15_decibels_below_the_recording(speech):
    added = CONDITIONS["noise"](speech, draw()).astype(np.float64) - speech
    assert 20 * np.log10(level(speech) / level(added)) == pytest.approx(15, abs=0.1)


def test_reverberation_decays_by_60_decibels_in_its_time():
    click = np.zeros(RATE, np.int16)
    click[0] = 30_000
    energies = []
    for seed in range(40):
        response = CONDITIONS["reverberation"](click, draw(seed)).astype(np.float64)
        assert not response[round(RT60[1] * RATE) :].any()
        energies.append(response**2)
    # The mean decays by 30 dB within half of the mean reverberation time, 0.4 s.
    mean = np.mean(energies, axis=0)
    early, late = (mean[round(at * RATE) : round((at + 0.02) * RATE)].mean() for at in (0.01, 0.21))
    assert 10 * np.log10(early / late) == pytest.approx(30, abs=3)


@pytest.mark.parametrize(("name", "factor"), [("faster", 1.05), ("slower", 0.95)])
def test_speed_moves_the_pitch(name, factor):
    assert frequency(CONDITIONS[name](tone(1000, 2), draw())) == pytest.approx(1000 * factor, abs=1)


@pytest.mark.parametrize("name", CONDITIONS)
def test_silence_and_a_single_sample_stay_usable(name):
    for sound in (np.zeros(RATE, np.int16), np.full(1, 100, np.int16), np.full(RATE, -32768, np.int16)):
        assert CONDITIONS[name](sound, draw()).dtype == np.int16


def test_other_samples_are_errors(speech):
    for wrong in (speech.astype(np.float32), speech[None], speech[:0]):
        with pytest.raises(ValueError, match=r"samples must be int16 \[n\], n >= 1, got"):
            CONDITIONS["mp3"](wrong, draw())
