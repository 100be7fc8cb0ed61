"""GE2E vectors of recordings: their cache, crops of them, and that windows are what the network itself averages."""

import shutil

import numpy as np
import pytest
import torch

from cmpc2 import decode, speech_only
from voicestyle.training.errors import TrainingDataError
from voicestyle.training.speaker_vectors import FRAMES, STEP, SpeakerVectors, speaker_vectors, unit, window_vectors
from voicestyle.training.voices import Speaker
from voicestyle.voice_networks import Ge2e, Ge2eFrontEnd

SPEAKERS = [Speaker("awb.wav", "1", "M"), Speaker("slt.wav", "2", "F")]


def half(samples, source):
    return samples[: len(samples) // 2]


def noisy(samples, source):
    return (samples + 500 * source.standard_normal(len(samples))).clip(-32768, 32767).astype(np.int16)


def random_network():
    torch.manual_seed(0)
    return Ge2e().eval()


@pytest.fixture(scope="module")
def network():
    return random_network()


@pytest.fixture
def folder(samples, tmp_path):
    """The recordings of two speakers."""
    for speaker in SPEAKERS:
        shutil.copyfile(samples / speaker.file, tmp_path / speaker.file)
    return tmp_path


class Calls:
    """Makes networks and counts them."""

    def __init__(self):
        self.count = 0

    def __call__(self):
        self.count += 1
        return random_network()


@pytest.fixture
def make(folder):
    """`make(conditions, speakers)`: the vectors, with one cache; `make.calls`: how often the network was needed."""
    calls = Calls()

    def vectors(conditions=None, speakers=SPEAKERS):
        conditions = {"half": half} if conditions is None else conditions
        return speaker_vectors(folder, speakers, conditions, calls, folder / "vectors.npz", list)

    vectors.calls = calls
    return vectors


def made_up(windows=(5, 3), conditions=2):
    rng = np.random.default_rng(0)
    return SpeakerVectors(
        [[unit(rng.random((n, 256)).astype(np.float32)) for _ in range(1 + conditions)] for n in windows]
    )


def test_window_vectors_are_those_of_single_windows(network, samples):
    speech = speech_only(decode(samples / "slt.wav"))[:60_000]
    windows = window_vectors(network, speech)
    features = Ge2eFrontEnd()(torch.from_numpy(speech.astype(np.float32) / 32768))
    assert len(windows) == (features.shape[2] - FRAMES) // STEP + 1 >= 3
    with torch.inference_mode():
        for number, window in enumerate(windows):
            alone = network(features[None, :, :, number * STEP : number * STEP + FRAMES])
            np.testing.assert_allclose(window, alone[0], atol=1e-6)
        whole = network(features[None])[0]
    np.testing.assert_allclose(unit(windows.mean(0)), whole, atol=1e-6)
    assert np.abs(windows[0] - windows[1]).max() > 1e-4


def test_vectors_are_stored_and_reused(make):
    first = make()
    assert [len(variants) for variants in first.windows] == [2, 2]
    assert len(first.windows[0][1]) < len(first.windows[0][0])
    second = make()
    assert make.calls.count == 1
    assert second.sha256() == first.sha256()
    np.testing.assert_array_equal(second.means(), first.means())
    np.testing.assert_allclose(np.linalg.norm(first.means(), axis=1), 1, atol=1e-5)


def test_vectors_are_computed_again_for_other_conditions_and_files(make, folder):
    first = make()
    other = make({"half": half, "noisy": noisy})
    assert make.calls.count == 2
    assert [len(variants) for variants in other.windows] == [3, 3]
    assert make({"renamed": half}).sha256() == first.sha256()
    assert make.calls.count == 3
    assert len(make(speakers=SPEAKERS[:1]).windows) == 1
    assert make.calls.count == 4
    make()
    shutil.copyfile(folder / "slt.wav", folder / "awb.wav")
    changed = make()
    assert make.calls.count == 6
    assert changed.sha256() != first.sha256()
    np.testing.assert_array_equal(changed.windows[0][0], changed.windows[1][0])


def test_random_conditions_do_not_depend_on_other_speakers(make):
    both = make({"noisy": noisy}).windows
    alone = make({"noisy": noisy}, SPEAKERS[:1]).windows
    np.testing.assert_array_equal(both[0][1], alone[0][1])
    assert np.abs(both[0][1] - both[0][0]).max() > 1e-4


def test_an_unreadable_recording_is_named(make, folder):
    (folder / "slt.wav").write_bytes(b"no recording")
    with pytest.raises(TrainingDataError, match=r"slt\.wav: .+"):
        make()
    assert not (folder / "vectors.npz").exists()


def test_a_recording_without_speech_is_named(make, folder):
    content = (folder / "slt.wav").read_bytes()
    (folder / "slt.wav").write_bytes(content[:44] + bytes(len(content) - 44))
    with pytest.raises(TrainingDataError, match=r"slt\.wav: .*speech"):
        make()


def test_crops_are_means_of_consecutive_windows():
    vectors = made_up(windows=(4,), conditions=1)
    possible = [
        unit(windows[start:stop].mean(0))
        for windows in vectors.windows[0]
        for start in range(4)
        for stop in range(start + 1, 5)
    ]
    generator = torch.Generator().manual_seed(0)
    seen = set()
    for _ in range(300):
        crop = vectors.crop(0, generator)
        matches = [i for i, each in enumerate(possible) if np.allclose(each, crop, atol=1e-6)]
        assert len(matches) == 1
        seen.add(matches[0])
    assert seen == set(range(20))


def test_half_of_the_crops_are_of_the_recording_itself():
    """And with equal chances of one of the conditions or of none otherwise."""
    vectors = made_up(windows=(1,), conditions=3)
    generator = torch.Generator().manual_seed(0)
    crops = np.stack([vectors.crop(0, generator) for _ in range(800)])
    shares = [np.isclose(crops, variant[0], atol=1e-6).all(1).mean() for variant in vectors.windows[0]]
    assert shares[0] == pytest.approx(0.5 + 0.5 / 4, abs=0.06)
    assert shares[1:] == pytest.approx([0.5 / 4] * 3, abs=0.04)


def test_the_hash_is_that_of_all_vectors():
    one, two = made_up(), made_up()
    assert one.sha256() == two.sha256()
    two.windows[1][2][0, 5] += 1e-3
    assert one.sha256() != two.sha256()
