import io
import json

import numpy as np
import pytest
import soundfile
import torch
from PIL import ExifTags, Image

from voicestyle.errors import InputError
from voicestyle.images import DIGITAL_SOURCE_TYPE, encode, to_pixels
from voicestyle.manifest import Caps
from voicestyle.offline import generate_face, generate_faces
from voicestyle.options import FORMATS, Options
from voicestyle.pipeline import FaceRequest, Pipeline
from voicestyle.scheduling import Phase, Scheduler


@pytest.fixture
def pipeline(tiny_bundle):
    return Pipeline.load(tiny_bundle, capacity=3)


def wav(samples, rate=16_000):
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


def start(pipeline, scheduler, key, audio, **options):
    request = FaceRequest.of(key, pipeline.prepare(audio, Options(**options)))
    scheduler.add(request)
    assert scheduler.start_waiting() == [request]
    pipeline.start([request])
    return request


@pytest.fixture
def scheduler(pipeline):
    return Scheduler(pipeline.capacity, 0, batched=pipeline.batched, iteration_seconds=0.1)


def test_a_voice_becomes_a_face_with_its_report(pipeline, samples):
    face = generate_face(pipeline, samples / "slt.wav", Options(seed=4))
    settings = face.settings
    assert (settings.steps, settings.seed, settings.size) == (6, 4, 64)
    assert len(face.trace) == 6
    assert face.similarity == face.trace[-1]
    assert face.audio_seconds == pytest.approx(9.185, abs=0.01)
    assert 5 < face.speech_seconds <= face.audio_seconds
    assert len(face.prototypes) == 3
    assert set(face.timings) == {
        "decode", "front_end", "voice_encoder", "first_latent", "queue", "optimise", "render", "encode",
    }  # fmt: skip
    image = Image.open(io.BytesIO(face.image))
    assert image.size == (64, 64)
    assert (image.text["Seed"], image.text["Dtype"], face.dtype) == ("4", "float32", "float32")
    assert DIGITAL_SOURCE_TYPE in image.text["XML:com.adobe.xmp"]


def test_a_face_depends_on_voice_and_seed_alone(pipeline, samples):
    audio = (samples / "rms.wav").read_bytes()

    def faces(*seeds):
        prepared = [(f"{seed}", pipeline.prepare(audio, Options(seed=seed, steps=6 + seed))) for seed in seeds]
        return {key: face.image for key, face in generate_faces(pipeline, prepared)}

    alone = faces(1)["1"]
    assert faces(1)["1"] == alone
    several = faces(3, 1, 2, 4)
    assert several["1"] == alone
    assert len(set(several.values())) == 4


def test_faces_come_in_the_order_in_which_they_finish(pipeline, samples):
    prepared = [
        (name, pipeline.prepare(samples / f"{name}.wav", Options(steps=steps)))
        for name, steps in (("slt", 40), ("rms", 2), ("awb", 4))
    ]
    reported = []
    faces = dict(generate_faces(pipeline, prepared, lambda progress: reported.append(progress)))
    assert list(faces) == ["rms", "awb", "slt"]
    assert {face.largest_batch for face in faces.values()} == {3}
    last = {key: progress for reports in reported for key, progress in reports.items()}
    assert {key: (at.step, at.steps) for key, at in last.items()} == {"slt": (40, 40), "rms": (2, 2), "awb": (4, 4)}
    assert last["slt"].similarity == pytest.approx(faces["slt"].similarity)


@pytest.mark.parametrize(
    ("audio", "code", "status"),
    [
        (b"", "not_audio", 415),
        (b"Once upon a time there was a voice. " * 50, "not_audio", 415),
        (wav(np.zeros(160_000, np.int16)), "no_speech", 422),
        (wav(np.zeros(16_000 * 21, np.int16)), "too_long", 413),
    ],
)
def test_unusable_audio_is_rejected_with_its_code(pipeline, audio, code, status):
    with pytest.raises(InputError) as caught:
        pipeline.prepare(audio, Options())
    assert (caught.value.code, caught.value.status) == (code, status)


def test_the_error_says_how_much_speech_there_was(pipeline, samples):
    voice, _ = soundfile.read(samples / "slt.wav", dtype="int16")
    with pytest.raises(InputError, match=r"must contain at least 0.5 s of speech, got 0\.\d\d s") as caught:
        pipeline.prepare(wav(voice[8000:11200]), Options())
    assert (caught.value.code, caught.value.status) == ("too_short", 422)


def test_options_are_checked_before_the_audio(pipeline):
    with pytest.raises(InputError, match="steps must be 1 to 40, got 400"):
        pipeline.prepare(b"", Options(steps=400))


def test_pixels_are_truncated_and_clamped():
    values = torch.tensor([-3.0, -1.0, 0.0, 0.999, 1.0, 7.0]).view(1, 1, 6).expand(3, 1, 6)
    assert to_pixels(values)[0, :, 0].tolist() == [0, 0, 127, 254, 255, 255]


@pytest.mark.parametrize("image_format", FORMATS)
def test_file_bytes_are_a_function_of_pixels_and_description(image_format):
    pixels = np.repeat(np.arange(0, 256, 4, dtype=np.uint8)[:, None, None], 64, axis=1).repeat(3, axis=2)
    file = encode(pixels, image_format, {"Seed": "1"})
    assert file == encode(pixels, image_format, {"Seed": "1"})
    assert file != encode(pixels, image_format, {"Seed": "2"})
    image = Image.open(io.BytesIO(file))
    assert image.format == image_format.upper()
    difference = np.abs(np.asarray(image.convert("RGB"), int) - pixels)
    assert difference.max() <= (0 if image_format == "png" else 12)
    assert DIGITAL_SOURCE_TYPE.encode() in file
    text = image.text if image_format == "png" else json.loads(image.getexif()[ExifTags.Base.ImageDescription])
    assert text["Seed"] == "1"


def test_a_preview_is_a_jpeg_and_changes_no_face(pipeline, scheduler, samples):
    request = start(pipeline, scheduler, "a", samples / "slt.wav", steps=6)
    previews = []
    while request.phase is Phase.RUNNING:
        plan = scheduler.plan()
        for requests in plan.steps:
            pipeline.step(requests)
        scheduler.record_steps(plan, 1.0)
        if request.phase is Phase.RUNNING:
            previews.append(pipeline.preview(request))
    assert scheduler.next_to_render() is request
    face = pipeline.render(request).encode()
    assert face.image == generate_face(pipeline, samples / "slt.wav", Options(steps=6)).image
    assert len({preview.image for preview in previews}) == 5
    image = Image.open(io.BytesIO(previews[0].image))
    assert (image.format, image.size) == ("JPEG", (previews[0].size,) * 2)


def test_a_request_with_steps_left_cannot_be_rendered(pipeline, scheduler, samples):
    request = start(pipeline, scheduler, "a", samples / "slt.wav", steps=2)
    with pytest.raises(ValueError, match="request 'a' has steps left"):
        pipeline.render(request)
    pipeline.remove(request)
    with pytest.raises(KeyError):
        pipeline.remove(request)


def test_previews_do_not_disturb_offline_generation(pipeline, samples):
    face = generate_face(pipeline, samples / "slt.wav", Options(steps=4, previews=2))
    assert len(face.trace) == 4


def test_a_caller_that_stops_early_leaves_nothing_behind(pipeline, samples):
    prepared = [
        (name, pipeline.prepare(samples / f"{name}.wav", Options(steps=n))) for name, n in (("slt", 2), ("rms", 40))
    ]
    faces = generate_faces(pipeline, prepared)
    assert next(faces)[0] == "slt"
    faces.close()
    assert set(dict(generate_faces(pipeline, prepared))) == {"slt", "rms"}


def test_a_service_may_allow_fewer_steps_than_a_warm_up_takes(tiny_bundle, samples):
    pipeline = Pipeline.load(tiny_bundle, capacity=1, caps=Caps(steps=1))
    assert len(generate_face(pipeline, samples / "slt.wav").trace) == 1
    with pytest.raises(InputError, match="steps must be 1 to 1, got 2"):
        pipeline.prepare(samples / "slt.wav", Options(steps=2))
