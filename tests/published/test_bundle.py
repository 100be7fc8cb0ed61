"""From small files in the published format to a face: builder, bundle, pipeline and command line."""

from __future__ import annotations

import io
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import cmpc2
from tests.support.tiny_engine import take_steps
from voicestyle.bundle import Bundle
from voicestyle.cli import main
from voicestyle.engine import Engine, VoiceObjective
from voicestyle.errors import BundleError
from voicestyle.generators import read_stylegan2
from voicestyle.manifest import FILES
from voicestyle.offline import generate_face, generate_faces
from voicestyle.options import Options
from voicestyle.pipeline import Pipeline
from voicestyle.published import PublishedOptions, build_published_bundle, read_latents

# WIDE has embeddings of the published length.
SMALL = cmpc2.ResNetConfig(widths=(4, 4, 8, 8), depths=(1, 1, 1, 1), embedding_dim=8)
WIDE = cmpc2.ResNetConfig(widths=(4, 4, 8, 512), depths=(1, 1, 1, 1))


@pytest.fixture
def options(small_encoder):
    return PublishedOptions(level=6, encoder_size=64, encoders=small_encoder)


def test_published_files_give_the_face_of_the_engine(published_files, options, small_encoder, samples, tmp_path):
    files = published_files()
    built = build_published_bundle(tmp_path / "bundle", files, options)
    assert (built.bank.dropped, built.bank.empty, built.bank.latents_without_video) == (0, 0, 1)
    pipeline = Pipeline.load(tmp_path / "bundle", capacity=2)
    requests = {"other": ("rms.wav", Options(steps=9)), "voice": ("slt.wav", Options(steps=5, seed=4))}
    prepared = [(key, pipeline.prepare(samples / name, options)) for key, (name, options) in requests.items()]
    face = dict(generate_faces(pipeline, prepared))["voice"]
    assert Image.open(io.BytesIO(face.image)).size == (64, 64)

    encoders = cmpc2.load(files.cmpc, small_encoder, small_encoder)
    generator, _ = read_stylegan2(files.stylegan)
    with torch.no_grad():
        voice = encoders.encode_voice(cmpc2.audio_preprocess()(samples / "slt.wav")[None])[0]
    videos = cmpc2.getKNearestSamples(voice, files.memory, files.csv, cluster=6, K=3)[:8]
    latents = read_latents(files.latents)
    engine = Engine(
        generator,
        VoiceObjective(encoders.face_subnet.requires_grad_(False), embedding_dim=8, image_size=64),
        latent_std=built.manifest.latent_std,
    )
    first = torch.from_numpy(latents.latents[latents.rows_of(videos)].mean(axis=0))
    engine.add("voice", [voice], first, seed=4, steps=5)
    np.testing.assert_allclose(face.trace, take_steps(engine, 5)["voice"].figures["similarity"], atol=1e-4)
    assert len(set(face.trace)) == 5


@pytest.mark.long
def test_the_manifest_describes_the_bundle(published_files, options, tmp_path):
    files = published_files()
    manifest = build_published_bundle(tmp_path / "bundle", files, options).manifest
    assert (manifest.prototype_level, manifest.prototypes, manifest.empty_prototypes) == (6, 6, 0)
    assert (manifest.nearest, manifest.instances, manifest.instance_choice) == (3, 8, "first")
    assert (manifest.default_steps, manifest.sizes, manifest.image_size) == (100, (64,), 64)
    assert len(manifest.sources) == 5
    assert manifest.sources[0].startswith("cmpc: cmpc.pth.tar, sha256 ")
    assert str(tmp_path).encode() not in manifest.to_json()
    generator, _ = read_stylegan2(files.stylegan)
    w = generator.map(torch.randn(10_000, 512))
    assert manifest.latent_std == pytest.approx(float((w - w.mean(0)).square().sum().div(10_000).sqrt()), rel=0.02)
    again = build_published_bundle(tmp_path / "again", files, options).manifest
    other = build_published_bundle(tmp_path / "other", files, replace(options, level=10)).manifest
    assert again.version == manifest.version != other.version


def test_prototypes_without_images_are_counted_and_kept(published_files, options, tmp_path):
    # 14 prototypes, 9 videos, 4 latents: 5 prototypes have no video, 5 have videos without latents.
    files = published_files(videos=9, held=(0, 3, 4, 8))
    built = build_published_bundle(tmp_path / "bundle", files, replace(options, level=14))
    assert (built.bank.dropped, built.bank.empty) == (5, 5)
    assert "5 prototypes dropped because none of their videos has a latent, 5 prototypes without videos" in str(built)
    bundle = Bundle.load(tmp_path / "bundle")
    assert (len(bundle.prototypes), bundle.manifest.empty_prototypes) == (9, 5)
    found = []
    for seed in range(30):
        voice = np.random.default_rng(seed).standard_normal(8).astype(np.float32)
        nearest = bundle.prototypes.nearest(voice, 3)
        chosen = bundle.nearest_prototypes(voice)
        assert chosen[:3] == nearest
        assert bundle.latent_bank.holds(chosen)
        assert len(chosen) == (3 if bundle.latent_bank.holds(nearest) else 4)
        found.append(len(chosen))
    assert set(found) == {3, 4}


@pytest.mark.long
def test_images_are_resized_for_an_encoder_of_224_pixels(published_files, options, narrow, samples, tmp_path):
    files = published_files(generator=replace(narrow, size=256, max_width=4))
    build_published_bundle(tmp_path / "bundle", files, replace(options, encoder_size=224))
    pipeline = Pipeline.load(tmp_path / "bundle", capacity=1)
    assert (pipeline.manifest.image_size, pipeline.manifest.encoder_size) == (256, 224)
    face = generate_face(pipeline, samples / "awb.wav", Options(steps=2))
    assert Image.open(io.BytesIO(face.image)).size == (256, 256)


@pytest.mark.long
def test_nearest_and_weighted_choices_embed_every_latent(published_files, options, small_encoder, samples, tmp_path):
    files = published_files(videos=20)
    seen = []
    firsts = {}
    for choice in ("first", "nearest", "weighted"):
        folder = tmp_path / choice
        chosen = replace(options, instance_choice=choice)
        build_published_bundle(folder, files, chosen, lambda batches: seen.append(len(batches)) or batches)
        bundle = Bundle.load(folder)
        pipeline = Pipeline(bundle, capacity=1)
        firsts[choice] = pipeline.prepare(samples / "slt.wav", Options(steps=1)).first_latent.numpy()
    assert seen == [3, 3]
    assert not np.allclose(firsts["nearest"], firsts["first"])
    assert not np.allclose(firsts["nearest"], firsts["weighted"])

    generator, _ = read_stylegan2(files.stylegan)
    source = torch.Generator().manual_seed(0)
    noise = [torch.randn(1, 1, *shape, generator=source) for shape in generator.noise_shapes]
    with torch.no_grad():
        image = generator(torch.from_numpy(bundle.latent_bank.latents[7:8].copy()), noise).clamp(-1, 1)
        expected = cmpc2.load(files.cmpc, small_encoder, small_encoder).encode_face(image)[0]
    np.testing.assert_allclose(bundle.latent_bank.embeddings[7], expected, rtol=2e-3, atol=2e-3)

    # The weighted mean in plain numpy.
    bank, voice = bundle.latent_bank, np.random.default_rng(0).standard_normal(8).astype(np.float32)
    rows = bank.nearest_rows([0, 3], 4, voice)
    weights = bank.weights(rows, voice)
    faces = bank.embeddings[rows].astype(float)
    cosines = faces @ voice / np.linalg.norm(faces, axis=1) / np.linalg.norm(voice)
    plain = np.exp(cosines / 0.01) / np.exp(cosines / 0.01).sum()
    np.testing.assert_allclose(weights, plain, rtol=1e-4)
    expected = sum(weight * bank.latents[row] for weight, row in zip(plain, rows, strict=True))
    np.testing.assert_allclose(bank.mean(rows, weights), expected, rtol=1e-4, atol=1e-5)


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def with_a_function(path):
    torch.save({"g_ema": {}, "model": {}, "centroids": [], "run": print}, path)


def one_row_less(path):
    path.write_text("\n".join(path.read_text().splitlines()[:-1]) + "\n")


TORCH_FILES = ("cmpc", "memory", "stylegan", "latents")
FAULTS = [
    *(("truncated", name, truncate, f"{name} must be a torch file") for name in TORCH_FILES),
    *(("function", name, with_a_function, f"{name} must be a torch file") for name in TORCH_FILES),
    ("rows", "csv", one_row_less, "must have one row for each of the 60 videos"),
    ("missing", "csv", lambda path: path.unlink(), "No such file"),
    ("folder", "cmpc", lambda path: (path.unlink(), path.mkdir()), "Is a directory"),
]


@pytest.mark.parametrize(
    ("name", "spoil", "message"), [fault[1:] for fault in FAULTS], ids=[f"{f[0]}-{f[1]}" for f in FAULTS]
)
def test_an_invalid_file_is_one_line_and_exit_code_2(published_files, tmp_path, name, spoil, message):
    files = published_files(encoder=WIDE)
    spoil(getattr(files, name))
    arguments = [f"--{field.name}={getattr(files, field.name)}" for field in fields(files)]
    output = tmp_path / "bundles" / "new"
    result = CliRunner().invoke(
        main, ["bundle", "published", *arguments, "--level=6", "--encoder-size=64", "-o", str(output)]
    )
    assert result.exit_code == 2, result.output
    error = result.stderr.replace(str(getattr(files, name)), name)
    assert message in error
    assert error.strip().count("\n") == 0
    assert not output.parent.exists()


@pytest.mark.parametrize(
    ("arguments", "changes", "message"),
    [
        (["--level=7"], {}, r"cluster must be one of [6, 10, 14]"),
        (["--level=6"], {}, "images must have at least the face encoder's 256 pixels"),
        (["--level=6", "--encoder-size=64"], {"encoder": SMALL}, "a centroid must have the 512 components"),
        (["--level=6", "--encoder-size=9"], {}, "encoder_size must be at least 32 pixels, got 9"),
        (["--level=6", "--encoder-size=64"], {}, "must contain exactly the weights of both encoders"),
    ],
)  # fmt: skip
def test_mismatched_sizes_are_rejected_before_writing(published_files, tmp_path, arguments, changes, message):
    files = published_files(**{"encoder": WIDE, **changes})
    given = [f"--{field.name}={getattr(files, field.name)}" for field in fields(files)]
    output = tmp_path / "bundles" / "new"
    result = CliRunner().invoke(main, ["bundle", "published", *given, *arguments, "-o", str(output)])
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert result.stderr.strip().count("\n") == 0
    assert not output.parent.exists()


def test_latents_of_another_length_are_rejected(published_files, options, tmp_path):
    files = published_files()
    content = torch.load(files.latents)
    torch.save({**content, "latents": content["latents"][:, :256]}, files.latents)
    with pytest.raises(BundleError, match=r"latents must be the generator's w \[512\] or w\+ \[10, 512\]; got \[256\]"):
        build_published_bundle(tmp_path / "bundles" / "new", files, options)
    assert not (tmp_path / "bundles").exists()


def test_the_first_choice_needs_no_embeddings(published_files, options, tmp_path):
    built = build_published_bundle(tmp_path / "bundle", published_files(), options)
    assert built.manifest.file_names == FILES
