"""The preset `instant`: a face from the mapper's latent, without steps or before the first one."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from msgspec import structs
from PIL import Image

from voicestyle.bundle import Bundle, write_bundle
from voicestyle.engine import Engine, VoiceObjective
from voicestyle.errors import InputError
from voicestyle.images import to_pixels
from voicestyle.offline import generate_face, generate_faces
from voicestyle.options import Options
from voicestyle.pipeline import FaceRequest, Pipeline
from voicestyle.scheduling import Phase, Scheduler


@pytest.fixture
def bundle(mapper_bundle):
    return Bundle.load(mapper_bundle)


@pytest.fixture(params=[False, True], ids=["sequential", "batched"])
def pipeline(bundle, request):
    return Pipeline(bundle, capacity=3, batched=request.param)


class Counting:
    """A network that notes how many items each call takes."""

    def __init__(self, network):
        self.network = network
        self.calls = []

    def __call__(self, first, *more):
        self.calls.append(len(first))
        return self.network(first, *more)

    def render(self, latents, noise, size):
        self.calls.append((len(latents), size))
        return self.network.render(latents, noise, size)

    def __getattr__(self, name):
        return getattr(self.network, name)


def pixels(face):
    return np.asarray(Image.open(io.BytesIO(face.image)))


def test_a_face_without_steps_is_the_mappers(pipeline, bundle, samples):
    face = generate_face(pipeline, samples / "slt.wav", Options(preset="instant", seed=4))
    assert (face.settings.steps, face.settings.preset, face.settings.seed, face.settings.size) == (0, "instant", 4, 64)
    prepared = pipeline.prepare(samples / "slt.wav", Options(preset="instant", seed=4))
    noise = [torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(4))]
    with torch.no_grad():
        voice = prepared.voice.embedding[None]
        latent = bundle.mapper(voice, prepared.first_latent[None])
        expected = to_pixels(bundle.generator.render(latent, noise, 64)[0])
        seen = bundle.face_encoder(bundle.generator(latent, noise).clamp(-1, 1))
    np.testing.assert_array_equal(pixels(face), expected)
    assert face.trace == [face.similarity] == [face.first_similarity]
    assert face.similarity == pytest.approx(torch.nn.functional.cosine_similarity(voice, seen).item(), abs=1e-6)
    assert face.largest_batch == 1
    assert list(face.timings) == [
        "decode", "front_end", "voice_encoder", "first_latent", "queue", "measure", "render", "encode",
    ]  # fmt: skip
    text = Image.open(io.BytesIO(face.image)).text
    assert (text["Steps"], text["Preset"]) == ("0", "instant")


def test_noise_maps_are_those_that_the_engine_draws(pipeline, bundle, samples):
    request = FaceRequest.of("a", pipeline.prepare(samples / "slt.wav", Options(preset="instant", seed=9)))
    pipeline.start([request])
    objective = VoiceObjective(bundle.face_encoder, embedding_dim=8, image_size=32)
    engine = Engine(bundle.generator, objective, latent_std=20.0, capacity=1)
    engine.add("a", [request.prepared.voice.embedding], request.outcome.latent[0], seed=9, steps=1)
    for ours, theirs in zip(request.outcome.noise, engine.outcome("a").noise, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_the_similarity_is_the_one_that_a_first_step_reports(pipeline, samples):
    none, one = (
        generate_face(pipeline, samples / "rms.wav", Options(preset="instant", steps=steps, seed=2)) for steps in (0, 1)
    )
    # The preset adds no noise to w, so the first step sees the same face.
    assert none.similarity == pytest.approx(one.first_similarity, abs=1e-6)


def test_steps_may_follow_and_start_from_the_mapper(pipeline, samples):
    prepared = [
        (preset, pipeline.prepare(samples / "slt.wav", Options(preset=preset, steps=9)))
        for preset in ("instant", "fast")
    ]
    faces = dict(generate_faces(pipeline, prepared))
    assert {key: len(face.trace) for key, face in faces.items()} == {"instant": 9, "fast": 9}
    assert faces["instant"].first_similarity != faces["fast"].first_similarity
    alone = generate_face(pipeline, samples / "slt.wav", Options(preset="instant", steps=0))
    assert faces["instant"].first_similarity == pytest.approx(alone.similarity, abs=1e-6)
    assert faces["instant"].similarity > alone.similarity


def test_faces_do_not_depend_on_each_other(bundle, samples):
    pipeline = Pipeline(bundle, capacity=3)
    prepared = [
        (f"{name} {size}", pipeline.prepare(samples / f"{name}.wav", Options(preset="instant", size=size)))
        for name in ("slt", "rms", "awb") for size in (32, 64)
    ]  # fmt: skip
    longest = pipeline.prepare(samples / "slt.wav", Options(steps=20))
    faces = dict(generate_faces(pipeline, [("long", longest), *prepared]))
    assert next(iter(faces)) == "slt 32"  # rendered before the first steps
    for key, each in prepared:
        ((_, alone),) = generate_faces(pipeline, [(key, each)])
        assert faces[key].image == alone.image
        assert (faces[key].trace, faces[key].largest_batch) == (alone.trace, 1)


def test_a_batched_pipeline_makes_all_in_one_call(bundle, samples):
    names = {"a": ("slt", 0, 64), "b": ("rms", 0, 32), "c": ("awb", 2, 64), "d": ("awb", 0, 64)}
    found = {}
    for batched in (False, True):
        mapper, generator = Counting(bundle.mapper), Counting(bundle.generator)
        pipeline = Pipeline(replace(bundle, mapper=mapper, generator=generator), capacity=4, batched=batched)
        requests = [
            FaceRequest.of(
                key, pipeline.prepare(samples / f"{name}.wav", Options(preset="instant", steps=steps, size=size))
            )
            for key, (name, steps, size) in names.items()
        ]
        scheduler = Scheduler(4, 0, batched=batched, iteration_seconds=60)
        scheduler.begin()
        for request in requests:
            scheduler.add(request)
        pipeline.start(scheduler.start_waiting())
        assert [request.phase for request in requests] == [
            Phase.RENDERING, Phase.RENDERING, Phase.RUNNING, Phase.RENDERING,
        ]  # fmt: skip
        rendered = {}
        while group := scheduler.next_without_steps():
            rendered |= {request.id: face for request, face in zip(group, pipeline.render_all(group), strict=True)}
        assert list(rendered) == ["a", "b", "d"]
        found[batched] = rendered
        if batched:
            assert mapper.calls == [4]
            assert generator.calls == [3, (2, 64), (1, 32)]
            assert {face.largest_batch for face in rendered.values()} == {3}
        else:
            assert mapper.calls == [1, 1, 1, 1]
            assert generator.calls == [1, (1, 64), 1, (1, 32), 1, (1, 64)]
            assert {face.largest_batch for face in rendered.values()} == {1}
        pipeline.remove(requests[2])
    for key, face in found[True].items():
        assert np.abs(face.pixels.astype(int) - found[False][key].pixels).max() <= 1
        assert face.trace == pytest.approx(found[False][key].trace, abs=1e-6)
        assert face.settings == found[False][key].settings


def test_a_mapper_of_w_plus(with_mapper, samples, tmp_path):
    latents = np.random.default_rng(1).standard_normal((40, 2, 512)).astype(np.float32)
    manifest = structs.replace(with_mapper["manifest"], latent_rows=2)
    write_bundle(tmp_path / "bundle", **with_mapper | {"latents": latents, "manifest": manifest})
    pipeline = Pipeline.load(tmp_path / "bundle", capacity=1)
    request = FaceRequest.of("a", pipeline.prepare(samples / "slt.wav", Options(preset="instant")))
    pipeline.start([request])
    assert request.outcome.latent.shape == (1, 2, 512)
    assert generate_face(pipeline, samples / "slt.wav", Options(preset="instant", steps=2)).settings.steps == 2


def test_a_bundle_without_a_mapper_names_its_presets(tiny_bundle, samples):
    pipeline = Pipeline.load(tiny_bundle, capacity=1)
    with pytest.raises(InputError, match="preset must be one of default, fast with this bundle, got instant"):
        pipeline.prepare(samples / "slt.wav", Options(preset="instant"))


def test_the_warm_up_runs_the_mapper(bundle):
    mapper = Counting(bundle.mapper)
    Pipeline(replace(bundle, mapper=mapper), capacity=1).warm_up()
    assert mapper.calls == [1, 1, 1]


def test_other_presets_ignore_the_mapper(mapper_bundle, tiny_bundle, samples):
    faces = [
        generate_face(Pipeline.load(folder, capacity=1), samples / "slt.wav", Options(steps=3))
        for folder in (mapper_bundle, tiny_bundle)
    ]
    assert faces[0].trace == faces[1].trace
    assert faces[0].image == faces[1].image
