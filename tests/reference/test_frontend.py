from __future__ import annotations

import numpy as np
import soundfile

from cmpc2 import audio_preprocess, decode, log_mel, speech_only


def test_samples_are_unchanged(reference, wave):
    path = reference.vectors / f"{wave}.wav"
    samples, rate = soundfile.read(path, dtype="int16")
    assert rate == 16_000
    np.testing.assert_array_equal(decode(path), samples)


def test_speech_equals_the_published_samples(reference, wave):
    voiced = speech_only(decode(reference.vectors / f"{wave}.wav"))
    np.testing.assert_array_equal(voiced, reference.array(f"frontend_{wave}", "voiced"))


def test_log_mel_of_published_speech(reference, wave):
    fbank = log_mel(reference.array(f"frontend_{wave}", "voiced"))
    expected = reference.array(f"frontend_{wave}", "fbank")
    assert fbank.shape == expected.shape
    np.testing.assert_allclose(fbank, expected, rtol=0, atol=1e-4)


def test_log_mel_of_a_file(reference, wave):
    fbank = audio_preprocess()((reference.vectors / f"{wave}.wav").read_bytes())
    np.testing.assert_allclose(fbank, reference.array(f"frontend_{wave}", "fbank"), rtol=0, atol=1e-4)
