"""A whole bundle on a device: captured at its start, voices of several lengths, faces alone and beside others."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.joined_faces import difference
from voicestyle.bundle import Bundle
from voicestyle.network_checks import tone
from voicestyle.offline import generate_faces
from voicestyle.options import Options
from voicestyle.pipeline import FaceRequest
from voicestyle.voices import FULL_SCALE, voice_features

NAMES = ("slt", "rms", "awb")
LENGTHS = (1.0, 2.0, 3.7, 6.0, 11.0)  # seconds of speech


@pytest.fixture(scope="module")
def voices(samples):
    return {name: (samples / f"{name}.wav").read_bytes() for name in NAMES}


def make(pipeline, requests):
    """Faces by key. requests: of each key the audio and the options."""
    prepared = [(key, pipeline.prepare(audio, options)) for key, (audio, options) in requests.items()]
    return dict(generate_faces(pipeline, prepared))


def bits(face):
    return face.image, tuple(face.trace)


def pixels(face):
    return np.asarray(Image.open(io.BytesIO(face.image)).convert("RGB"), np.float64)


def psnr(face, expected):
    return 10 * np.log10(255**2 / max(np.square(pixels(face) - pixels(expected)).mean(), 1e-9))


def check_faces(*faces):
    for face in faces:
        assert len(set(face.trace)) == len(face.trace), f"the face does not change in each step: {face.trace}"
        assert pixels(face).std() > 5, "the image is nearly one colour"


@pytest.mark.parametrize("batched", [True, False])
def test_the_step_is_captured_where_there_are_graphs(load, device, batched):
    computing = load(batched=batched).computing
    assert computing.device == str(device)
    assert computing.batching == ("batched" if batched else "sequential")
    assert computing.graphs == ("on" if device.type == "cuda" else "off")


def test_a_sequential_face_has_the_same_bits_alone_and_in_any_row(load, voices):
    pipeline = load(batched=False)
    wanted = {"a": (voices["slt"], Options(steps=7, seed=1))}
    others = {f"b{seed}": (voices[NAMES[seed % 3]], Options(steps=3 + seed, seed=seed)) for seed in range(4)}
    alone, again = make(pipeline, wanted)["a"], make(pipeline, wanted)["a"]
    check_faces(alone)
    assert bits(again) == bits(alone)
    in_rows = [wanted | others, others | wanted, dict(list(others.items())[:2]) | wanted | others]
    for requests in in_rows:
        assert bits(make(pipeline, requests)["a"]) == bits(alone), "a face depends on the other faces or on its row"
    assert bits(make(load(batched=False), wanted)["a"]) == bits(alone), "a face depends on the process's history"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_same_batch_gives_the_same_bits_again(load, voices, dtype):
    requests = {name: (voices[name], Options(steps=6, seed=2)) for name in NAMES}
    pipeline = load(batched=True, dtype=dtype)
    faces, again = make(pipeline, requests), make(pipeline, requests)
    elsewhere = make(load(batched=True, dtype=dtype), requests)
    check_faces(*faces.values())
    for name in NAMES:
        assert bits(again[name]) == bits(faces[name])
        assert bits(elsewhere[name]) == bits(faces[name])


def test_a_batched_face_is_close_to_the_sequential_one(load, voices):
    requests = {name: (voices[name], Options(steps=6, seed=2)) for name in NAMES}
    batched, sequential = make(load(batched=True), requests), make(load(batched=False), requests)
    check_faces(*batched.values())
    for name in NAMES:
        assert batched[name].similarity == pytest.approx(sequential[name].similarity, abs=1e-3)
        assert psnr(batched[name], sequential[name]) > 40


def test_bfloat16_is_within_the_bounds_of_quality(load, voices):
    requests = {name: (voices[name], Options(steps=8, seed=3)) for name in NAMES}
    narrow, wide = make(load(dtype=torch.bfloat16), requests), make(load(), requests)
    check_faces(*narrow.values())
    for name in NAMES:
        assert narrow[name].dtype == "bfloat16"
        assert narrow[name].similarity != wide[name].similarity, "bfloat16 is not used"
        assert narrow[name].similarity == pytest.approx(wide[name].similarity, abs=0.03)
        assert psnr(narrow[name], wide[name]) > 25


def test_a_voice_has_the_same_embedding_as_on_the_cpu_at_each_length(load, small_bundle, device):
    """Lengths that warm-up has not seen, each three times: compiled modules may change form in the first runs."""
    here, reference = load()._bundle, Bundle.load(small_bundle)

    def embed(bundle, seconds, on):
        wave = tone(seconds) * torch.linspace(0.2, 1, round(seconds * 16000))
        features = voice_features((wave * FULL_SCALE).short().numpy(), bundle.front_end, on)
        with torch.inference_mode():
            return bundle.voice_encoder(features[None].to(on))[0].cpu()

    found = []
    for seconds in LENGTHS:
        runs = [embed(here, seconds, device) for _ in range(3)]
        expected = embed(reference, seconds, "cpu")
        assert expected.std() > 1e-3
        assert difference(runs[0], expected) < 1e-4, "the voice encoder computes in less than float32"
        for again in runs[1:]:
            assert torch.equal(again, runs[0]), f"the embedding of {seconds} s differs from run to run"
        found.append(runs[0])
    assert torch.stack(found).std(dim=0).min() > 0, "the embedding does not depend on the voice"


def test_instant_faces(load, voices):
    requests = {name: (voices[name], Options(preset="instant", seed=5)) for name in NAMES}
    batched, sequential = load(batched=True), load(batched=False)
    faces, again, expected = make(batched, requests), make(batched, requests), make(sequential, requests)
    for name in NAMES:
        face = faces[name]
        assert face.trace == [face.similarity]
        assert pixels(face).std() > 5
        assert bits(again[name]) == bits(face)
        assert face.similarity == pytest.approx(expected[name].similarity, abs=1e-4)
        assert psnr(face, expected[name]) > 50
        assert bits(make(sequential, {name: requests[name]})[name]) == bits(expected[name])
    assert len({face.image for face in faces.values()}) == len(NAMES)


def test_instant_and_stepped_faces_share_a_pipeline(load, voices):
    pipeline = load(batched=True)
    stepped = {name: (voices[name], Options(steps=6, seed=2)) for name in NAMES}
    instant = {f"{name}, instant": (voices[name], Options(preset="instant")) for name in NAMES}
    alone, mixed = make(pipeline, stepped), make(pipeline, stepped | instant)
    assert mixed.keys() == stepped.keys() | instant.keys()
    for name in NAMES:
        assert bits(mixed[name]) == bits(alone[name])


def test_a_face_that_is_rendered_while_others_are_stepped_leaves_them_as_they_are(load, voices):
    """Rendering and previews allocate memory beside that of the graphs, which must not be overwritten."""
    pipeline = load(batched=True)
    similarities = []
    for disturb in (False, True):
        request = FaceRequest.of("a", pipeline.prepare(voices["slt"], Options(steps=8, seed=1)))
        pipeline.start([request])
        while request.outcome is None:
            pipeline.step([request])
            if disturb and request.outcome is None:
                pipeline.preview(request)
                pipeline.prepare(voices["rms"], Options())
        similarities.append(request.outcome.figures["similarity"].tolist())
    assert similarities[0] == similarities[1]
    assert len(set(similarities[0])) == 8
