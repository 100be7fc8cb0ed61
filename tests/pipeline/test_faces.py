import io
import json

import numpy as np
import pytest
import soundfile
import torch
from PIL import ExifTags, Image

from voicestyle.errors import InputError
from voicestyle.images import DIGITAL_SOURCE_TYPE, encode, to_pixels
from voicestyle.options import FORMATS, Options
from voicestyle.pipeline import Pipeline


@pytest.fixture
def pipeline(tiny_bundle):
    return Pipeline.load(tiny_bundle, capacity=3)


def wav(samples, rate=16_000):
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


def test_a_voice_becomes_a_face_with_its_report(pipeline, samples):
    settings = pipeline.submit("a", samples / "slt.wav", Options(seed=4))
    assert (settings.steps, settings.seed, settings.size) == (6, 4, 64)
    pipeline.step(4)
    assert pipeline.progress()["a"].step == 4
    pipeline.step(4)
    assert pipeline.progress()["a"].finished
    face = pipeline.finish("a")
    assert pipeline.live == 0
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
    assert image.text["Seed"] == "4"
    assert DIGITAL_SOURCE_TYPE in image.text["XML:com.adobe.xmp"]


def test_same_voice_and_seed_same_bytes_alone_or_in_company(pipeline, samples):
    audio = (samples / "rms.wav").read_bytes()

    def face(key, **options):
        pipeline.submit(key, audio, Options(**options))
        while not pipeline.progress()[key].finished:
            pipeline.step()
        return pipeline.finish(key).image

    alone = face("alone", seed=1)
    assert face("again", seed=1) == alone
    pipeline.submit("company", samples / "slt.wav", Options(steps=30))
    pipeline.step(3)
    assert psnr(face("crowded", seed=1), alone) > 40
    assert face("other", seed=2) != alone
    assert pipeline.live == 1
    pipeline.remove("company")


def psnr(one, other):
    pixels = [np.asarray(Image.open(io.BytesIO(png)), float) for png in (one, other)]
    error = np.square(pixels[0] - pixels[1]).mean()
    return np.inf if error == 0 else 10 * np.log10(255**2 / error)


@pytest.mark.parametrize(
    ("audio", "code", "status"),
    [
        (b"", "not_audio", 415),
        (b"Once upon a time there was a voice. " * 50, "not_audio", 415),
        (wav(np.zeros(160_000, np.int16)), "no_speech", 422),
        (wav(np.zeros(16_000 * 21, np.int16)), "too_long", 413),
    ],
)
def test_audio_that_cannot_be_used_leaves_nothing_behind(pipeline, audio, code, status):
    with pytest.raises(InputError) as caught:
        pipeline.submit("x", audio, Options())
    assert (caught.value.code, caught.value.status) == (code, status)
    assert pipeline.live == 0


def test_too_little_speech_says_how_much_there_was(pipeline, samples):
    voice, _ = soundfile.read(samples / "slt.wav", dtype="int16")
    with pytest.raises(InputError, match=r"must hold 0.5 s of speech at least, got 0\.\d\d s") as caught:
        pipeline.submit("x", wav(voice[8000:11200]), Options())
    assert (caught.value.code, caught.value.status) == ("too_short", 422)


def test_bad_options_are_found_before_the_audio_is_touched(pipeline):
    with pytest.raises(InputError, match="steps must be 1 to 40, got 400"):
        pipeline.submit("x", b"", Options(steps=400))


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
    words = image.text if image_format == "png" else json.loads(image.getexif()[ExifTags.Base.ImageDescription])
    assert words["Seed"] == "1"


def test_a_preview_is_a_jpeg_of_the_face_on_its_way_and_changes_nothing(pipeline, samples):
    def face(watched):
        pipeline.submit("a", samples / "slt.wav", Options(steps=6))
        for _ in range(3):
            pipeline.step(2)
            if watched:
                previews.append(pipeline.preview("a"))
        return pipeline.finish("a")

    previews = []
    assert face(watched=True).image == face(watched=False).image
    assert len({preview.image for preview in previews}) == 3
    image = Image.open(io.BytesIO(previews[0].image))
    assert (image.format, image.size) == ("JPEG", (previews[0].size,) * 2)


def test_a_prepared_request_waits_for_its_place(pipeline, samples):
    prepared = pipeline.prepare(samples / "slt.wav", Options(steps=2))
    assert pipeline.live == 0
    pipeline.join("a", prepared)
    pipeline.step(2)
    assert pipeline.finish("a").timings["queue"] >= 0
