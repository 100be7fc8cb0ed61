"""GE2E's front end: against librosa's values and a simple reference; volume, windows, short recordings, scripting."""

import numpy as np
import pytest
import torch

from tests.support.plain_mel_windows import mel_bank, plain_features, windows_of
from voicestyle import torchscript
from voicestyle.voice_networks import Ge2eFrontEnd
from voicestyle.voice_networks.ge2e_front_end import mel_filters

# Bands of two frames of `chirp`, from librosa 0.11.0: feature.melspectrogram(sr=16000, n_fft=400, hop_length=160,
# n_mels=40). Bands that are millions of times below the loudest are left out: they hold the rounding of float32.
LIBROSA = {
    (0, 0): [0.46609, 0.37284, 0.0511746, 0.003424, 0.00118413, 0.000530246, 0.000259525, 0.00014801, 9.1684e-05],
    (0, 20): [1.88796e-06, 1.38503e-06, 1.05521e-06, 7.87979e-07, 5.8667e-07, 4.49607e-07, 3.39693e-07, 2.58238e-07],
    (60, 21): [2.86743e-08, 2.25831e-07, 2.41531e-05, 0.282208, 0.508497, 0.000351235, 2.24284e-07, 1.19676e-08],
}


def tone(count, level=0.1, hz=220.0):
    return torch.from_numpy((level * np.sin(2 * np.pi * hz * np.arange(count) / 16000)).astype(np.float32))


def noise(count, level=0.1, seed=0):
    return torch.randn(count, generator=torch.Generator().manual_seed(seed)) * level


@pytest.mark.parametrize(("frame", "band"), LIBROSA)
def test_bands_are_those_of_librosa(front_end, frame, band):
    time = np.arange(25600) / 16000
    chirp = (0.1 * np.sin(2 * np.pi * (100 * time + 2000 * time * time))).astype(np.float32)
    values = front_end(torch.from_numpy(chirp))[0].numpy()
    expected = LIBROSA[frame, band]
    np.testing.assert_allclose(values[band : band + len(expected), frame], expected, rtol=1e-3)


def test_filters_are_those_of_the_simple_reference():
    np.testing.assert_allclose(mel_filters(), mel_bank(), rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("count", [1, 700, 8000, 25599, 25600, 43839, 43840, 60123])
@pytest.mark.parametrize("level", [0.3, 0.002])
def test_features_are_those_of_the_simple_reference(front_end, count, level):
    samples = noise(count, level, seed=count)
    features, expected = front_end(samples), plain_features(samples.numpy())
    assert features.shape == (1, *expected.shape)
    assert features.dtype == torch.float32
    np.testing.assert_allclose(features[0].numpy(), expected, rtol=2e-4, atol=1e-9)


def test_features_end_with_a_window_that_is_covered_to_three_quarters(front_end):
    for count in range(25600, 90000, 79):
        assert front_end(tone(count)).size(2) == windows_of(count)[-1] + 160


def test_quiet_speech_is_raised_and_loud_speech_is_not_lowered(front_end):
    loud, at_target = tone(32000, 0.5), tone(32000, 2**0.5 * 10**-1.5)
    torch.testing.assert_close(front_end(loud), 4 * front_end(tone(32000, 0.25)))
    for level in (0.03, 1e-3, 1e-5):
        torch.testing.assert_close(front_end(tone(32000, level)), front_end(at_target), rtol=1e-3, atol=1e-8)


def test_silence_has_finite_features(front_end):
    assert front_end(torch.zeros(30000)).abs().max() == 0


def test_a_short_recording_is_repeated(front_end):
    samples = noise(9600)
    once, thrice = front_end(samples), front_end(samples.repeat(3))
    assert once.shape == (1, 40, 160)
    torch.testing.assert_close(once[:, :, :158], thrice[:, :, :158])


@pytest.mark.parametrize(
    "samples", [torch.zeros(0), torch.zeros(1, 16000), torch.zeros(16000, dtype=torch.int16), torch.zeros(5).double()]
)
def test_other_samples_are_an_error_that_states_the_rule(front_end, samples):
    with pytest.raises(ValueError, match=r"samples must be float32 \[n\], n ≥ 1; received .*\["):
        front_end(samples)


def test_the_stored_form_gives_the_same_bits(front_end, speech, tmp_path):
    torchscript.save(front_end, tmp_path / "front_end.pt")
    stored = torchscript.load(tmp_path / "front_end.pt", "cpu")
    for samples in (speech["slt"], speech["rms"][:8000]):
        for _ in range(3):  # TorchScript optimises in the first calls
            assert torch.equal(stored(samples), front_end(samples))
    with pytest.raises(torch.jit.Error, match=r"samples must be float32 \[n\]"):
        stored(torch.zeros(2, 3))


def test_it_has_nothing_to_train(front_end):
    assert not list(front_end.parameters())
    assert set(Ge2eFrontEnd().state_dict()) == {"window", "filters"}


@pytest.mark.gpu
def test_a_gpu_computes_the_same(speech):
    on_gpu = Ge2eFrontEnd().cuda()(speech["slt"].cuda())
    torch.testing.assert_close(on_gpu.cpu(), Ge2eFrontEnd()(speech["slt"]), rtol=1e-3, atol=1e-7)
