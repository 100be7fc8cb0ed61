"""The front end against a plain loop over frames, also with several threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from cmpc2 import decode, log_mel, speech_only
from cmpc2.log_mel import _FILTERS, BLOCK_FRAMES
from tests.support import plain_front_end

ONE_THREAD = 1 << 18  # multiplications per matrix product up to which OpenBLAS uses one thread


@pytest.mark.parametrize("seconds", [9.0, 2.0])
def test_front_end_equals_a_loop_over_frames(speech, encode, seconds):
    audio = encode(np.resize(speech, int(16_000 * seconds)))
    voiced = speech_only(decode(audio))
    np.testing.assert_array_equal(voiced, plain_front_end.speech_only(decode(audio)))
    np.testing.assert_allclose(log_mel(voiced), plain_front_end.front_end(audio), rtol=0, atol=1e-4)


@pytest.mark.parametrize("gain", [1.0, 0.1, 0.01, 0.001])
def test_quiet_speech_is_computed_accurately(speech, gain):
    quiet = np.rint(speech * gain).astype(np.int16)
    np.testing.assert_allclose(log_mel(quiet), plain_front_end.log_mel(quiet), rtol=0, atol=1e-4)


@pytest.mark.parametrize("frames", [-1, 0, 1, 2, 3, 4])
def test_frames_at_block_boundaries_are_correct(frames):
    length = 160 * (2 * BLOCK_FRAMES + frames)
    samples = np.random.default_rng(frames + 1).integers(-9000, 9000, length).astype(np.int16)
    np.testing.assert_allclose(log_mel(samples), plain_front_end.log_mel(samples), rtol=0, atol=1e-4)


def test_recordings_do_not_affect_later_ones(speech):
    alone = log_mel(speech[:5000])
    log_mel(speech[::-1].copy())
    np.testing.assert_array_equal(log_mel(speech[:5000]), alone)


def test_threads_do_not_share_buffers(speech):
    recordings = [np.roll(speech, 997 * i) for i in range(8)]
    alone = [log_mel(each) for each in recordings]
    with ThreadPoolExecutor(4) as threads:
        for together, expected in zip(threads.map(log_mel, recordings * 8), alone * 8, strict=True):
            np.testing.assert_array_equal(together, expected)


def test_matrix_products_stay_below_openblas_threading():
    assert max(BLOCK_FRAMES * weights.size for _, _, weights in _FILTERS) <= ONE_THREAD
