"""Embeddings from files, and from encoders over folders with a cache."""

import shutil

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from cmpc2 import CMPC, ResNetConfig, audio_preprocess, decode, log_mel, speech_only, visual_preprocess
from tests.support.optional_parts import BandEnergies, optional_parts
from tests.support.tiny_bundle import TINY_ENCODER
from voicestyle.bundle import write_bundle
from voicestyle.evaluation.embeddings import read_embeddings
from voicestyle.evaluation.encoders import bundle_encoders, checkpoint_encoders, embed_folder
from voicestyle.evaluation.errors import EvaluationError
from voicestyle.evaluation.keys import key_of
from voicestyle.serving.canary_voice import vowel


def test_a_file_of_embeddings(tmp_path):
    np.savez(tmp_path / "e.npz", keys=np.array(["a/b.wav", "c/d"]), embeddings=np.array([[3.0, 4.0], [0.0, 2.0]]))
    found = read_embeddings(tmp_path / "e.npz")
    assert found.vectors == pytest.approx(np.array([[0.6, 0.8], [0.0, 1.0]]))
    assert found.find(["c/d", "a/b", "x"]).tolist() == [1, 0, -1]
    assert (found.dim, found.source) == (2, "e.npz")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"keys": ["a"]}, r"must have the arrays keys and embeddings, received \['keys'\]"),
        ({"keys": [1], "embeddings": [[1.0]]}, "keys of text"),
        ({"keys": ["a", "b"], "embeddings": [[1.0]]}, r"received <U1 \[2\] and float64 \[1, 1\]"),
        ({"keys": ["a"], "embeddings": [[1]]}, "embeddings of floats"),
        ({"keys": ["a"], "embeddings": [1.0]}, r"must have the shape \[N, E\], received \[1\]"),
        ({"keys": ["a", "a.wav"], "embeddings": [[1.0], [1.0]]}, "each key once, received 'a' twice"),
        ({"keys": ["a"], "embeddings": [[0.0]]}, "must be finite and not 0"),
        ({"keys": ["a"], "embeddings": [[float("nan")]]}, "must be finite and not 0"),
        ({"keys": ["../a"], "embeddings": [[1.0]]}, "a path must be relative and without .., received '../a'"),
        ({"keys": np.array(["a", None]), "embeddings": [[1.0]]}, "must be a .npz file of plain arrays"),
    ],
)
def test_bad_files_of_embeddings(tmp_path, arrays, message):
    np.savez(tmp_path / "e.npz", **{name: np.array(value) for name, value in arrays.items()})
    with pytest.raises(EvaluationError, match=message):
        read_embeddings(tmp_path / "e.npz")


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 cut off"])
def test_a_file_that_is_no_npz(tmp_path, content):
    (tmp_path / "e.npz").write_bytes(content)
    with pytest.raises(EvaluationError, match="must be a .npz file of plain arrays"):
        read_embeddings(tmp_path / "e.npz")


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("a/b.wav", "a/b"),
        ("A.R._Lee/1.6/x/5.JPG", "A.R._Lee/1.6/x/5"),
        ("A.R._Lee", "A.R._Lee"),
        ("x.npy", "x"),
    ],
)
def test_keys_are_paths_without_the_suffix_of_a_file(path, key):
    assert key_of(path) == key


@pytest.mark.parametrize("path", ["", "/a.wav", "a/../b.wav"])
def test_paths_that_leave_the_folder_are_no_keys(path):
    with pytest.raises(ValueError, match="must be relative"):
        key_of(path)


@pytest.fixture
def folders(tmp_path, samples):
    """Recordings, one of them also as a log-mel, a file that is none, and an image."""
    voices, faces = tmp_path / "voices", tmp_path / "faces"
    (voices / "p1").mkdir(parents=True)
    (faces / "P.1").mkdir(parents=True)
    shutil.copy(samples / "slt.wav", voices / "p1" / "00001.wav")
    shutil.copy(samples / "rms.wav", voices / "p1" / "00002.wav")
    np.save(voices / "p1" / "00002.npy", log_mel(speech_only(decode(samples / "awb.wav")))[0].T)
    (voices / "p1" / "00003.wav").write_text("no recording")
    pixels = np.random.default_rng(0).integers(0, 255, (40, 30, 3), np.uint8)
    Image.fromarray(pixels).save(faces / "P.1" / "1.png")
    return voices, faces


class Doubled(torch.nn.Module):
    """Another front end with the same shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.energies = BandEnergies()

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        return 2 * self.energies(samples)


VOICES = ["p1/00001", "p1/00002", "p1/00003", "p1/00004"]


def counting(seen):
    def progress(keys):
        seen.append(list(keys))
        return keys

    return progress


def test_a_bundle_embeds_folders_once(tiny_bundle, folders, samples, tmp_path):
    encoders = bundle_encoders(tiny_bundle)
    assert (encoders.name, encoders.face_size) == ("tiny@7", 32)
    voices, faces = folders
    seen = []
    found = embed_folder(encoders, voices, "voice", VOICES, tmp_path / "cache", counting(seen))
    assert list(found.rows) == VOICES[:2]
    assert list(found.unusable) == ["p1/00003"]
    assert "audio must be in a format" in found.unusable["p1/00003"]
    assert found.source == "tiny@7 on voices"
    with torch.inference_mode():
        for key, sample in (
            ("p1/00001", "slt.wav"),
            ("p1/00002", "awb.wav"),
        ):
            plain = encoders.encode_voice(audio_preprocess()(samples / sample)[None])[0].numpy()
            assert found.vectors[found.rows[key]] == pytest.approx(plain / np.linalg.norm(plain), abs=1e-5)
        image = encoders.encode_face(visual_preprocess(32)(faces / "P.1" / "1.png")[None])[0].numpy()
    again = embed_folder(encoders, voices, "voice", VOICES, tmp_path / "cache", counting(seen))
    assert seen == [VOICES[:3], VOICES[2:3]]
    assert np.array_equal(again.vectors, found.vectors)
    (stored,) = (tmp_path / "cache").iterdir()
    assert np.array_equal(read_embeddings(stored).vectors, found.vectors)
    face = embed_folder(encoders, faces, "face", ["P.1/1"], tmp_path / "cache", iter)
    assert face.vectors[0] == pytest.approx(image / np.linalg.norm(image), abs=1e-6)


def test_a_bundle_with_its_own_front_end_embeds_recordings(folders, tmp_path):
    write_bundle(tmp_path / "bundle", **optional_parts())
    encoders, (voices, _) = bundle_encoders(tmp_path / "bundle"), folders
    np.save(voices / "p1" / "00004.npy", np.zeros((900, 64), np.float32))  # without a recording
    soundfile.write(voices / "p1" / "00005.wav", vowel(0.3), 16_000)
    keys = [*VOICES, "p1/00005"]
    found = embed_folder(encoders, voices, "voice", keys, tmp_path / "cache", iter)
    assert list(found.rows) == VOICES[:2]
    assert list(found.unusable) == ["p1/00003", "p1/00004", "p1/00005"]
    assert found.unusable["p1/00004"] == ("a bundle with its own front end takes recordings, received a log-mel (.npy)")
    assert "at least 0.5 s of speech are needed, received 0." in found.unusable["p1/00005"]
    parts = optional_parts()
    for key, name in (("p1/00001", "00001.wav"), ("p1/00002", "00002.wav")):  # not the log-mel beside it
        speech = torch.from_numpy(speech_only(decode(voices / "p1" / name))).float() / 32768
        with torch.no_grad():
            plain = parts["voice_encoder"](parts["front_end"](speech)[None])[0].numpy()
        assert found.vectors[found.rows[key]] == pytest.approx(plain / np.linalg.norm(plain), abs=1e-5)


def test_another_front_end_is_another_cache(tmp_path):
    parts, digests = optional_parts(), set()
    for name, front_end in (("one", parts["front_end"]), ("two", Doubled().eval())):
        write_bundle(tmp_path / name, **parts | {"front_end": front_end})
        digests.add(bundle_encoders(tmp_path / name).digest)
    assert len(digests) == 2


def test_a_changed_file_and_a_damaged_cache_are_computed_again(tiny_bundle, folders, samples, tmp_path):
    encoders = bundle_encoders(tiny_bundle)
    seen = []
    first = embed_folder(encoders, folders[0], "voice", VOICES[:1], tmp_path / "cache", counting(seen))
    shutil.copy(samples / "awb.wav", folders[0] / "p1" / "00001.wav")
    second = embed_folder(encoders, folders[0], "voice", VOICES[:1], tmp_path / "cache", counting(seen))
    assert not np.allclose(first.vectors, second.vectors)
    (stored,) = (tmp_path / "cache").iterdir()
    stored.write_bytes(b"damaged")
    third = embed_folder(encoders, folders[0], "voice", VOICES[:1], tmp_path / "cache", counting(seen))
    assert np.array_equal(second.vectors, third.vectors)
    assert seen == [VOICES[:1]] * 3


def test_an_interrupted_run_keeps_what_it_has(tiny_bundle, folders, tmp_path):
    encoders = bundle_encoders(tiny_bundle)

    def interrupted(keys):
        yield keys[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed_folder(encoders, folders[0], "voice", VOICES, tmp_path / "cache", interrupted)
    seen = []
    embed_folder(encoders, folders[0], "voice", VOICES, tmp_path / "cache", counting(seen))
    assert seen == [VOICES[1:3]]


def test_a_checkpoint_embeds_as_its_networks(folders, samples, tmp_path):
    torch.manual_seed(0)
    model = CMPC(TINY_ENCODER, TINY_ENCODER).eval()
    torch.save({"model": model.state_dict()}, tmp_path / "cmpc.pth.tar")
    encoders = checkpoint_encoders(tmp_path / "cmpc.pth.tar", 32, config=TINY_ENCODER)
    assert encoders.name.startswith("cmpc.pth.tar, sha256 ")
    with torch.inference_mode():
        plain = model.encode_voice(audio_preprocess()(samples / "slt.wav")[None])[0].numpy()
    assert encoders.embed(folders[0] / "p1" / "00001.wav") == pytest.approx(plain)
    other = checkpoint_encoders(tmp_path / "cmpc.pth.tar", 64, config=TINY_ENCODER)
    assert other.digest != encoders.digest


def test_the_default_networks_of_a_checkpoint_are_those_published(tmp_path):
    torch.save({"model": CMPC(TINY_ENCODER, TINY_ENCODER).state_dict()}, tmp_path / "cmpc.pth.tar")
    assert ResNetConfig().depths == (3, 4, 6, 3)
    with pytest.raises(ValueError, match="must contain exactly the weights of both encoders"):
        checkpoint_encoders(tmp_path / "cmpc.pth.tar", 32)


def test_a_folder_that_is_none(tiny_bundle, tmp_path):
    with pytest.raises(EvaluationError, match="voices must be a folder or a .npz file, received .*nowhere"):
        embed_folder(bundle_encoders(tiny_bundle), tmp_path / "nowhere", "voice", [], tmp_path, iter)


def test_a_folder_without_any_file(tiny_bundle, tmp_path):
    encoders = bundle_encoders(tiny_bundle)
    with pytest.raises(EvaluationError, match="must have a usable face for the keys of the lists; 'a/b': no file"):
        embed_folder(encoders, tmp_path, "face", ["a/b"], tmp_path / "cache", iter)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.jpg").write_text("no image")
    with pytest.raises(EvaluationError, match="'a/b': cannot identify image file"):
        embed_folder(encoders, tmp_path, "face", ["a/b"], tmp_path / "cache", iter)


def test_unreadable_images_and_log_mels_are_unusable(tiny_bundle, folders, tmp_path, monkeypatch):
    voices, faces = folders
    (voices / "p1" / "00003.npy").touch()
    np.savez(voices / "p1" / "00004.npz", np.zeros((3, 64)))
    (voices / "p1" / "00004.npz").rename(voices / "p1" / "00004.npy")
    encoders = bundle_encoders(tiny_bundle)
    found = embed_folder(encoders, voices, "voice", VOICES, tmp_path / "cache", iter)
    assert list(found.unusable) == VOICES[2:]
    Image.new("RGB", (80, 80)).save(faces / "P.1" / "2.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)
    found = embed_folder(encoders, faces, "face", ["P.1/1", "P.1/2"], tmp_path / "cache", iter)
    assert "decompression bomb" in found.unusable["P.1/2"]
    (faces / "P.1" / "2.png").write_bytes(b"no image")
    found = embed_folder(encoders, faces, "face", ["P.1/1", "P.1/2"], tmp_path / "cache", iter)
    assert "'2.png'" in found.unusable["P.1/2"]  # without the folder
