from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmpc2 import log_mel


def slow_log_mel(samples: np.ndarray, min_frames: int = 800) -> np.ndarray:
    """The reference: a plain loop over frames, filters and bins in float64."""
    rows = []
    last = 0.0
    for index in range(len(samples) // 160 + 1):
        own = [float(x) for x in samples[index * 160 : index * 160 + 400]] or [0.0]
        frame = [own[i % len(own)] for i in range(400)]
        emphasised = np.array([x - 0.97 * y for x, y in zip(frame, [last, *frame[:-1]], strict=True)])
        last = frame[-1]
        power = np.abs(np.fft.fft(emphasised * np.hamming(400), 1024)) ** 2
        rows.append([math.log(max(energy(power, band), 1e-5)) for band in range(64)])
    bands = np.array(rows, np.float32).T
    normal = [(band - band.mean()) / (band.std() + np.finfo(np.float32).eps) for band in bands.astype(float)]
    frames = np.array(normal)
    while frames.shape[1] < min_frames:
        frames = np.concatenate([frames, frames[:, : min_frames - frames.shape[1]]], axis=1)
    return frames[None]


def energy(power: np.ndarray, band: int) -> float:
    mel = [2595 * math.log10(1 + hz / 700) for hz in (20, 7200)]
    step = (mel[1] - mel[0]) / 65
    hz = [700 * (10 ** ((mel[0] + step * (band + i)) / 2595) - 1) for i in range(3)]
    left, centre, right = (round(x / 15.625) * 15.625 for x in hz)
    total = 0.0
    for index in range(513):
        x = index * 15.625
        if left <= x <= right:
            side = (x - left) / (centre - left) if x <= centre else (right - x) / (right - centre)
            total += float(power[index]) * side * 2 / (right - left)
    return total


@pytest.mark.parametrize("length", [1, 159, 160, 161, 399, 400, 401, 560, 719, 720, 5120, 5121, 20_000])
def test_equals_the_reference(length):
    rng = np.random.default_rng(length)
    loud = np.sin(np.arange(length) * 0.05) * 9000 * (np.arange(length) % 4000 < 2500)
    samples = np.rint(loud + rng.normal(0, 30, length)).astype(np.int16)
    fast = log_mel(samples)
    assert fast.dtype == np.float32
    assert fast.flags.c_contiguous
    np.testing.assert_allclose(fast, slow_log_mel(samples), atol=5e-5)


def test_equals_the_reference_on_speech(speech):
    np.testing.assert_allclose(log_mel(speech[:40_000]), slow_log_mel(speech[:40_000]), atol=5e-5)


@settings(max_examples=15, deadline=None)
@given(st.integers(1600, 3500), st.integers(1, 32767), st.integers(0, 2**32 - 1))
def test_equals_the_reference_at_any_length_and_level(length, level, seed):
    samples = np.random.default_rng(seed).integers(-level, level + 1, length).astype(np.int16)
    np.testing.assert_allclose(log_mel(samples, 5), slow_log_mel(samples, 5), atol=1e-4)


def test_bands_are_normalised_over_time(speech):
    bands = log_mel(speech, 1)[0]
    assert bands.shape == (64, len(speech) // 160 + 1)
    np.testing.assert_allclose(bands.mean(axis=1), 0, atol=1e-5)
    np.testing.assert_allclose(bands.std(axis=1), 1, atol=1e-4)


@pytest.mark.parametrize(("length", "frames"), [(100, 1), (16_000, 101), (127_839, 799)])
def test_short_speech_is_repeated_to_800_frames(length, frames):
    samples = np.random.default_rng(0).integers(-999, 999, length).astype(np.int16)
    bands = log_mel(samples)
    assert bands.shape == (1, 64, 800)
    np.testing.assert_array_equal(bands[0], np.tile(bands[0, :, :frames], 800)[:, :800])
    np.testing.assert_array_equal(bands[:, :, :frames], log_mel(samples, 1))


def test_long_speech_is_not_cut():
    samples = np.random.default_rng(0).integers(-999, 999, 200_000).astype(np.int16)
    assert log_mel(samples).shape == (1, 64, 1251)


def test_silence_and_constant_bands_are_finite():
    assert not log_mel(np.zeros(16_000, np.int16)).any()
    assert np.isfinite(log_mel(np.full(16_000, -32768, np.int16))).all()


def test_a_quiet_band_next_to_a_loud_one_is_accurate():
    t = np.arange(48_000)
    samples = np.rint(32000 * np.sin(t * 0.08) + np.random.default_rng(0).uniform(-1, 1, len(t)) * (t % 9000 < 4000))
    samples = samples.astype(np.int16)
    np.testing.assert_allclose(log_mel(samples), slow_log_mel(samples), atol=5e-5)


def test_the_input_is_not_modified(speech):
    before = speech.copy()
    log_mel(speech)
    np.testing.assert_array_equal(speech, before)


def test_invalid_samples_are_rejected():
    with pytest.raises(ValueError, match=r"int16 \[n\], n ≥ 1; received float32 \[5\]"):
        log_mel(np.zeros(5, np.float32))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"received int16 \[0\]"):
        log_mel(np.zeros(0, np.int16))
    with pytest.raises(ValueError, match=r"received int16 \[1, 9\]"):
        log_mel(np.zeros((1, 9), np.int16))
