"""Bundles with their own front end, a latent map, a prior and a mapper."""

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest
import torch
from msgspec.structs import replace
from torch import Tensor, nn

from cmpc2 import decode, speech_only
from tests.support.optional_parts import BANDS, BandEncoder, BandEnergies, Shift, optional_parts
from tests.support.tiny_bundle import tiny_parts
from voicestyle.bundle import Bundle, sha256, write_bundle, write_with_mapper, write_with_other_bank
from voicestyle.errors import BundleError
from voicestyle.latent_prior import LatentPrior
from voicestyle.manifest import BANK_PARTS, FILES, FRONT_END, Manifest, Prior
from voicestyle.offline import generate_face, generate_faces
from voicestyle.options import Options
from voicestyle.pipeline import Pipeline
from voicestyle.serving.canary import SPEECH_MARGIN
from voicestyle.serving.canary_voice import canary_wav

OPTIONAL = (FRONT_END, *BANK_PARTS)


@pytest.fixture(scope="module")
def full_bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("optional") / "full"
    write_bundle(folder, **optional_parts(with_prior=True))
    return folder


@pytest.fixture
def altered(full_bundle, tmp_path):
    return shutil.copytree(full_bundle, tmp_path / "copy")


def test_a_bundle_without_optional_parts_has_none(tiny_bundle):
    bundle = Bundle.load(tiny_bundle)
    assert (bundle.front_end, bundle.latent_map, bundle.latent_prior, bundle.mapper) == (None, None, None, None)
    assert bundle.manifest.file_names == FILES


def test_a_written_bundle_loads_with_all_optional_parts(full_bundle):
    parts, bundle = optional_parts(with_prior=True), Bundle.load(full_bundle)
    assert bundle.manifest.file_names == (*FILES, *OPTIONAL)
    assert set(bundle.manifest.files) == {*FILES, *OPTIONAL}
    assert replace(bundle.manifest, files={}) == parts["manifest"]
    samples, embedding, latent = torch.randn(16_000) / 9, torch.randn(3, 8), torch.randn(3, 512)
    torch.testing.assert_close(bundle.front_end(samples), parts["front_end"](samples))
    torch.testing.assert_close(bundle.mapper(embedding, latent).shape, latent.shape)
    np.testing.assert_array_equal(bundle.latent_map.weight, parts["latent_map"].weight)
    np.testing.assert_array_equal(bundle.latent_prior.whitening, parts["latent_prior"].whitening)


@pytest.mark.parametrize("with_prior", [False, True])
def test_a_voice_becomes_a_face(tmp_path, samples, with_prior):
    write_bundle(tmp_path / "bundle", **optional_parts(with_prior=with_prior))
    pipeline = Pipeline.load(tmp_path / "bundle", capacity=3)
    prepared = [(name, pipeline.prepare(samples / f"{name}.wav", Options())) for name in ("slt", "rms", "awb")]
    faces = dict(generate_faces(pipeline, prepared))
    assert len({face.image for face in faces.values()}) == 3
    alone = generate_face(pipeline, samples / "rms.wav", Options())
    assert alone.image == faces["rms"].image
    assert alone.trace == faces["rms"].trace
    assert len(alone.trace) == 6


def test_the_voice_encoder_gets_the_features_of_the_own_front_end(tmp_path, samples):
    parts = optional_parts()
    write_bundle(tmp_path / "bundle", **parts)
    prepared = Pipeline.load(tmp_path / "bundle", capacity=1).prepare(samples / "slt.wav", Options())
    speech = torch.from_numpy(speech_only(decode(samples / "slt.wav"))).float() / 32768
    with torch.no_grad():
        expected = parts["voice_encoder"](parts["front_end"](speech)[None])[0]
    torch.testing.assert_close(prepared.voice.embedding, expected)
    assert set(prepared.voice.timings) == {"decode", "front_end", "voice_encoder"}


def test_the_prior_of_the_manifest_reaches_the_engine(tmp_path, samples):
    """A large weight keeps the latent near its centre; held directions keep the first latent's components."""
    parts, latents = optional_parts(with_prior=True), {}
    for name, prior in (
        ("weak", Prior(weight=0.0)),
        ("first", Prior(weight=100.0)),
        ("bank", Prior(weight=100.0, centre="bank")),
        ("held", Prior(weight=0.0, hold=True)),
    ):
        write_bundle(tmp_path / name, **parts | {"manifest": replace(parts["manifest"], prior=prior)})
        pipeline = Pipeline.load(tmp_path / name, capacity=1)
        prepared = pipeline.prepare(samples / "slt.wav", Options(steps=20))
        first = prepared.first_latent
        pipeline._engine.add("a", [prepared.voice.embedding], first, seed=0, steps=20, **pipeline._prior_arguments())
        for _ in range(20):
            pipeline._engine.step()
        latents[name] = pipeline._engine.outcome("a").latent[0]
    mean = torch.from_numpy(parts["latent_prior"].mean)
    assert (latents["first"] - first).norm() < 0.5 * (latents["weak"] - first).norm()
    assert (latents["bank"] - mean).norm() < (latents["weak"] - mean).norm()
    torch.testing.assert_close(latents["held"][:2], first[:2], rtol=0, atol=1e-5)
    assert not torch.allclose(latents["weak"][:2], first[:2], rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"front_end": "gammatone"}, "front_end must be one of log_mel, own, got gammatone"),
        ({"front_end": "log_mel"}, "lists 'front_end.pt', which is not a file of this bundle"),
        ({"first_latent": "mapper"}, "first_latent must be one of prototypes, map, got mapper"),
        ({"first_latent": 3}, "Expected `str`, got `int` - at `$.first_latent`, got 3"),
        ({"mapper": "yes"}, "Expected `bool`, got `str` - at `$.mapper`, got 'yes'"),
        ({"mapper": False}, "lists 'mapper.pt', which is not a file of this bundle"),
        ({"prior": {"weight": -0.5}}, "weight of the prior must be a finite number of at least 0, got -0.5"),
        ({"prior": {"weight": 1, "centre": "mean"}}, "centre of the prior must be one of first, bank, got mean"),
        ({"prior": {"weight": "1"}}, "Expected `float`, got `str` - at `$.prior.weight`, got '1'"),
        ({"prior": {}}, "missing required field `weight` - at `$.prior`"),
        ({"prior": {"weight": 1, "wait": 2}}, "unknown field `wait` - at `$.prior`"),
        ({"prior": None}, "lists 'latent_prior.npz', which is not a file of this bundle"),
    ],
)
def test_an_invalid_field_is_one_clear_error(altered, change, message):
    path = altered / "bundle.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(BundleError, match=re.escape(message)) as caught:
        Bundle.load(altered)
    assert str(caught.value).count(", got ") <= 2  # the type, and the value once


@pytest.mark.parametrize("weight", [float("nan"), float("inf")])
def test_a_weight_is_finite(weight):
    with pytest.raises(BundleError, match=f"finite number of at least 0, got {weight}"):
        Prior(weight=weight)


@pytest.mark.parametrize("name", OPTIONAL)
def test_a_missing_or_altered_optional_file_is_named(altered, name):
    path, manifest = altered / name, altered / "bundle.json"
    content = path.read_bytes()
    path.write_bytes(content + b" ")
    with pytest.raises(BundleError, match=f"{name} was altered: sha256 must be"):
        Bundle.load(altered)
    for broken in (b"", b"no part", content[: len(content) // 2]):
        path.write_bytes(broken)
        values = json.loads(manifest.read_text())
        values["files"][name] = sha256(path)
        manifest.write_text(json.dumps(values))
        with pytest.raises(BundleError, match=rf"{name}(:| must be a .npz file of .*:) \S") as caught:
            Bundle.load(altered)
        assert "\n" not in str(caught.value)
    path.unlink()
    with pytest.raises(BundleError, match=f"{name} is missing"):
        Bundle.load(altered)


@pytest.mark.parametrize(
    ("part", "name"),
    [("front_end", FRONT_END), ("latent_map", "latent_map.npz"), ("latent_prior", "latent_prior.npz"),
     ("mapper", "mapper.pt")],
)  # fmt: skip
def test_parts_and_fields_go_together(tmp_path, part, name):
    parts = optional_parts(with_prior=True)
    with pytest.raises(BundleError, match=f"must give a sha256 for {name}"):
        write_bundle(tmp_path / "bundle", **parts | {part: None})
    assert list(tmp_path.iterdir()) == []


class Whole(nn.Module):
    """A front end without the axis of one channel image."""

    def forward(self, samples: Tensor) -> Tensor:
        return samples.view(1, -1)


class Logarithm(nn.Module):
    """A front end that is not finite where a sample is 0."""

    def forward(self, samples: Tensor) -> Tensor:
        return torch.log(samples.abs()).view(1, 1, -1)


class Doubles(nn.Module):
    """A front end in float64."""

    def forward(self, samples: Tensor) -> Tensor:
        return samples.double().view(1, 1, -1)


class Long(nn.Module):
    """A front end that needs a second of speech."""

    def forward(self, samples: Tensor) -> Tensor:
        if len(samples) < 16_000:
            raise RuntimeError("a second is needed")
        return samples[: len(samples) // 6 * 6].view(1, 6, -1)


class Narrow(nn.Module):
    """A mapper that returns other latents than it takes."""

    def forward(self, embedding: Tensor, first_latent: Tensor) -> Tensor:
        return first_latent[:, :-1]


class Broken(nn.Module):
    """A mapper whose latents are not finite."""

    def forward(self, embedding: Tensor, first_latent: Tensor) -> Tensor:
        return first_latent / 0.0


class Pair(nn.Module):
    """A mapper that returns two tensors."""

    def forward(self, embedding: Tensor, first_latent: Tensor) -> tuple[Tensor, Tensor]:
        return first_latent, embedding


class Sum(nn.Module):
    """An encoder without an axis of components."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.flatten(1).sum(dim=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"front_end": Whole()}, "front_end.pt must map 2 s of speech, float32 [32000], to finite features float32 "
         "[1, C, T], got float32 [1, 32000]"),
        ({"front_end": Logarithm()}, "got float32 [1, 1, 32000] with NaN or infinity"),
        ({"front_end": Doubles()}, "to finite features float32 [1, C, T], got float64 [1, 1, 32000]"),
        ({"front_end": Long()}, "front_end.pt must take 0.5 s of speech, float32 [8000]; it failed: "),
        ({"voice_encoder": nn.Linear(3, 8)}, "voice_encoder.pt must take an input [1, 1, 6, 200]; it failed: "),
        ({"voice_encoder": Sum()}, "voice_encoder.pt must map an input [1, 1, 6, 200] to finite float32 [1, 8], got "
         "float32 [1]"),
        ({"face_encoder": Sum()}, "face_encoder.pt must map an input [1, 3, 32, 32] to finite float32 [1, 8], got "
         "float32 [1]"),
        ({"mapper": Narrow()}, "mapper.pt must map an embedding [1, 8] and a first latent [1, 512] to finite float32 "
         "[1, 512], got float32 [1, 511]"),
        ({"mapper": Broken()}, "got float32 [1, 512] with NaN or infinity"),
        ({"mapper": Pair()}, "mapper.pt must return one tensor, got tuple"),
        ({"mapper": nn.Linear(8, 512)}, "mapper.pt must take an embedding [1, 8] and a first latent [1, 512]; it "
         "failed: "),
        ({"latent_prior": LatentPrior.fit(np.eye(4, dtype=np.float32), held=np.zeros((0, 4), np.float32))},
         "latent_dim of latent_prior.npz must be 512 as in bundle.json, got 4"),
        ({"latent_prior": LatentPrior.fit(np.eye(4, 512, dtype=np.float32))},
         "hold of the prior needs held directions in latent_prior.npz, got none"),
    ],
)  # fmt: skip
def test_a_part_that_does_not_fit_is_one_clear_line(tmp_path, change, message):
    change = {name: part.eval() if isinstance(part, nn.Module) else part for name, part in change.items()}
    with pytest.raises(BundleError, match=re.escape(message)) as caught:
        write_bundle(tmp_path / "bundle", **optional_parts(with_prior=True) | change)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_voice_encoder_for_other_features_is_named(tmp_path, parts):
    with pytest.raises(BundleError, match=r"voice_encoder.pt must take an input \[1, 1, 64, 800\]; it failed: \S"):
        write_bundle(tmp_path / "bundle", **parts | {"voice_encoder": BandEncoder().eval()})


@pytest.mark.parametrize(("given", "channels", "shortest"), [(tiny_parts, 64, 800), (optional_parts, BANDS, 200)])
def test_warm_up_runs_front_end_and_voice_encoder_at_several_lengths(tmp_path, given, channels, shortest):
    write_bundle(tmp_path / "bundle", **given())
    bundle, shapes = Bundle.load(tmp_path / "bundle"), []

    def watched(features):
        shapes.append(tuple(features.shape))
        return bundle.voice_encoder(features)

    Pipeline(dataclasses.replace(bundle, voice_encoder=watched), capacity=1).warm_up()
    assert {shape[:3] for shape in shapes} == {(1, 1, channels)}
    lengths = [shape[3] for shape in shapes]
    assert lengths.count(shortest) >= 3
    assert len(set(lengths)) >= 3


def test_the_canarys_voice_suits_any_front_end(tmp_path):
    write_bundle(tmp_path / "bundle", **optional_parts())
    pipeline = Pipeline.load(tmp_path / "bundle", capacity=1)
    seconds = pipeline.manifest.limits.min_speech_seconds + SPEECH_MARGIN
    face = generate_face(pipeline, canary_wav(seconds), Options(steps=1, size=32))
    assert len(face.trace) == 1


def test_a_mapper_is_added_to_a_copy_of_a_bundle(tmp_path, tiny_bundle, samples):
    mapper = Shift().eval()
    manifest = write_with_mapper(tmp_path / "new", tiny_bundle, mapper)
    before = Manifest.read(tiny_bundle)
    assert not before.mapper
    assert Manifest.read(tmp_path / "new") == manifest
    assert manifest.mapper
    for name in before.file_names:
        assert (tmp_path / "new" / name).read_bytes() == (tiny_bundle / name).read_bytes()
    assert replace(manifest, mapper=False, files=before.files) == before
    embedding, latent = torch.randn(2, 8), torch.randn(2, 512)
    with torch.no_grad():
        torch.testing.assert_close(Bundle.load(tmp_path / "new").mapper(embedding, latent), mapper(embedding, latent))
    faces = [
        generate_face(Pipeline.load(folder, capacity=1), samples / "slt.wav").image
        for folder in (tiny_bundle, tmp_path / "new")
    ]
    assert faces[0] == faces[1]


def test_a_mapper_is_replaced_in_place_and_an_altered_base_is_rejected(altered):
    torch.manual_seed(8)
    mapper = Shift().eval()
    write_with_mapper(altered, altered, mapper)
    embedding, latent = torch.ones(1, 8), torch.zeros(1, 512)
    with torch.no_grad():
        torch.testing.assert_close(Bundle.load(altered).mapper(embedding, latent), mapper(embedding, latent))
    (altered / "latent_bank.npy").write_bytes(b"altered")
    with pytest.raises(BundleError, match="latent_bank.npy was altered"):
        write_with_mapper(altered, altered, mapper)
    with pytest.raises(BundleError, match=r"bundle.json is missing"):
        write_with_mapper(altered.parent / "new", altered.parent, mapper)
    assert [path.name for path in altered.parent.iterdir()] == [altered.name]


def test_another_bank_keeps_the_front_end_alone(tmp_path, full_bundle, parts):
    base = Manifest.read(full_bundle)
    bank = {name: parts[name] for name in ("centroids", "latents", "assignments")}
    manifest = write_with_other_bank(tmp_path / "other", full_bundle, replace(base, version="8"), **bank)
    assert manifest.file_names == (*FILES, FRONT_END)
    assert (manifest.first_latent, manifest.mapper, manifest.prior) == ("prototypes", False, None)
    assert {path.name for path in (tmp_path / "other").iterdir()} == {*FILES, FRONT_END, "bundle.json"}
    assert (tmp_path / "other" / FRONT_END).read_bytes() == (full_bundle / FRONT_END).read_bytes()
    assert Bundle.load(tmp_path / "other").manifest == manifest


def test_front_ends_are_scripted_in_evaluation_mode(tmp_path):
    with pytest.raises(ValueError, match="must be in evaluation mode"):
        write_bundle(tmp_path / "bundle", **optional_parts() | {"front_end": BandEnergies()})
