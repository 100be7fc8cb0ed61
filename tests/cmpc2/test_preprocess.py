from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

import cmpc2
from cmpc2 import AudioError, audio_preprocess, load_voice, log_mel, speech_only, visual_preprocess


def test_public_names_are_those_of_the_published_package():
    published = {"load", "load_voice", "audio_preprocess", "visual_preprocess", "getKNearestSamples"}
    assert published <= set(cmpc2.__all__)
    assert all(hasattr(cmpc2, name) for name in cmpc2.__all__)


def test_audio_preprocess_gives_the_log_mel_of_speech(speech, encode, tmp_path):
    path = tmp_path / "voice.wav"
    path.write_bytes(encode(speech))
    expected = log_mel(speech_only(speech))
    for source in (path, str(path), path.read_bytes()):
        audio = audio_preprocess()(source)
        assert (audio.dtype, tuple(audio.shape)) == (torch.float32, (1, 64, 800))
        np.testing.assert_array_equal(audio.numpy(), expected)


def test_audio_preprocess_options_are_mode_and_frames(speech, encode):
    audio = audio_preprocess(valid_level=3, min_time=1)(encode(speech))
    np.testing.assert_array_equal(audio.numpy(), log_mel(speech_only(speech, 3), 1))


def test_audio_without_speech_is_rejected(encode):
    with pytest.raises(AudioError, match=r"found none in 10\.00 s"):
        audio_preprocess()(encode(np.zeros(160_000, np.int16)))


def test_pixels_map_to_minus_one_to_one(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    pixels[0, 0], pixels[0, 1] = 0, 255
    image = Image.fromarray(pixels)
    path = tmp_path / "face.png"
    image.save(path)
    expected = (pixels.astype(float).transpose(2, 0, 1) - 127.5) / 127.5
    for source in (path, str(path), image):
        face = visual_preprocess(9)(source)
        assert (face.dtype, tuple(face.shape)) == (torch.float32, (3, 9, 9))
        assert face.is_contiguous()
        np.testing.assert_allclose(face.numpy(), expected, atol=1e-6)
    assert (float(face.min()), float(face.max())) == (-1.0, 1.0)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "CMYK"])
def test_images_of_any_mode_become_rgb_of_the_size(mode):
    face = visual_preprocess(224)(Image.new("RGB", (50, 30), (10, 200, 90)).convert(mode))
    assert tuple(face.shape) == (3, 224, 224)
    assert float(face.abs().max()) <= 1


def test_invalid_images_and_sizes_are_rejected(tmp_path):
    path = tmp_path / "letter.png"
    path.write_text("a letter")
    with pytest.raises(OSError, match="cannot identify"):
        visual_preprocess()(path)
    with pytest.raises(ValueError, match="at least 1 pixel; received 0"):
        visual_preprocess(0)


@pytest.mark.parametrize(("frames", "expected"), [(1, 800), (300, 800), (800, 800), (900, 900)])
def test_saved_log_mel_is_repeated_to_800_frames(tmp_path, frames, expected):
    saved = np.random.default_rng(0).normal(size=(frames, 64))
    np.save(tmp_path / "voice.npy", saved)
    voice = load_voice()(tmp_path / "voice.npy")
    assert (voice.dtype, tuple(voice.shape)) == (torch.float32, (1, 64, expected))
    np.testing.assert_array_equal(voice[0].numpy().T, np.tile(saved, (800, 1))[:expected].astype(np.float32))


def test_our_own_saved_log_mel_is_loaded_unchanged(speech, tmp_path):
    bands = log_mel(speech, 1)
    np.save(tmp_path / "voice.npy", bands[0].T)
    np.testing.assert_array_equal(load_voice()(tmp_path / "voice.npy").numpy(), log_mel(speech))


@pytest.mark.parametrize("shape", [(0, 64), (800, 40), (64,), (1, 64, 800)])
def test_saved_arrays_of_another_shape_are_rejected(tmp_path, shape):
    np.save(tmp_path / "voice.npy", np.zeros(shape))
    with pytest.raises(ValueError, match=r"must contain frames \[T, 64\], T ≥ 1; received \["):
        load_voice()(str(tmp_path / "voice.npy"))


def test_pickled_arrays_are_rejected(tmp_path):
    np.save(tmp_path / "voice.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle"):
        load_voice()(tmp_path / "voice.npy")
