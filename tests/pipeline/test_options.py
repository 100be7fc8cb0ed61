"""The options of a request: the table, the parser, and the limits of bundle and service."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from voicestyle.errors import BundleError, InputError
from voicestyle.manifest import Caps, Manifest
from voicestyle.options import MAX_SEED, OPTIONS, Options, OptionValues, Settings


@pytest.fixture(scope="module")
def manifest(tiny_bundle):
    return Manifest.read(tiny_bundle)


def test_option_names_and_choices_ignore_case():
    texts = {"Steps": " 5 ", "SEED": "7", "size": "64", "Format": "JPEG", "output": "json", "previews": "2"}
    assert Options.parse(texts | {"Preset": "Fast "}) == Options(
        steps=5, seed=7, size=64, format="jpeg", output="json", previews=2, preset="fast"
    )


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({"stepps": "1"}, "unknown option 'stepps'; the options are steps, preset, seed, size, "),
        ({"stepps": "1"}, "format, output, previews; the nearest is 'steps'"),
        ({"fromat": "png"}, "the nearest is 'format'"),
        ({"steps": "1", "STEPS": "1"}, "option 'steps' was given twice"),
        ({"steps": "1.5"}, "steps must be an integer, got '1.5'"),
        ({"steps": "٣"}, "steps must be an integer"),
        ({"steps": "-1"}, "steps must be at least 0, got -1"),
        ({"seed": "-1"}, "seed must be 0 to 9223372036854775807, got -1"),
        ({"size": "9" * 5000}, "size must be an integer"),
        ({"seed": "9" * 20}, "seed must be 0 to 9223372036854775807"),
        ({"format": "gif"}, "format must be one of png, jpeg, webp, got 'gif'"),
        ({"output": ""}, "output must be one of image, json, got ''"),
        ({"preset": "slow"}, "preset must be one of default, fast, instant, got 'slow'"),
        ({"previews": "-2"}, "previews must be at least 0, got -2"),
    ],
)  # fmt: skip
def test_an_option_that_breaks_a_rule_is_named(texts, message):
    with pytest.raises(InputError) as caught:
        Options.parse(texts)
    assert message in str(caught.value)
    assert (caught.value.code, caught.value.status) == ("bad_option", 400)


@given(st.dictionaries(st.text(), st.text(), max_size=3))
def test_any_text_is_an_option_or_one_short_error(texts):
    message = ""
    try:
        Options.parse(texts)
    except InputError as error:
        message = error.message
    assert len(message) < 400


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Options(steps=400), "steps must be 1 to 40, got 400"),
        (Options(steps=0), "steps must be 1 to 40, got 0"),
        (Options(preset="instant"), "preset must be one of default, fast with this bundle, got instant"),
        (Options(preset="instant", steps=3), "preset must be one of default, fast with this bundle, got instant"),
        (Options(size=65), "size must be one of 32, 64, got 65"),
        (Options(previews=17, steps=40), "previews must be 0 to 16, got 17"),
        (Options(previews=1, preset="fast"), "previews must be fewer than the 1 steps, got 1"),
        (Options(previews=5, steps=5), "previews must be fewer than the 5 steps, got 5"),
    ],
)
def test_options_beyond_the_bundles_limits(manifest, options, message):
    with pytest.raises(InputError, match=message):
        manifest.resolve(options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Options(steps=0), "steps must be 1 to 40, or 0 with the preset instant, got 0"),
        (Options(steps=0, preset="fast"), "steps must be 1 to 40, or 0 with the preset instant, got 0"),
        (Options(steps=41, preset="instant"), "steps must be 0 to 40, got 41"),
        (Options(previews=1, preset="instant"), "previews must be 0 with 0 steps, got 1"),
        (Options(previews=2, steps=2, preset="instant"), "previews must be fewer than the 2 steps, got 2"),
    ],
)
def test_no_steps_are_for_the_preset_instant(manifest, options, message):
    with pytest.raises(InputError, match=f"^{message}$") as caught:
        replace(manifest, mapper=True).resolve(options)
    assert (caught.value.code, caught.value.status) == ("bad_option", 400)


def test_instant_takes_no_steps_unless_it_is_given_some(manifest):
    with_mapper = replace(manifest, mapper=True)
    assert (with_mapper.presets, manifest.presets) == (("default", "fast", "instant"), ("default", "fast"))
    for options, steps, previews in (
        (Options(preset="instant"), 0, 0),
        (Options(preset="instant", steps=0, previews=0), 0, 0),
        (Options(preset="instant", steps=5, previews=2), 5, 2),
    ):
        settings = with_mapper.capped(Caps(steps=5)).resolve(options)
        assert (settings.preset, settings.steps, settings.previews) == ("instant", steps, previews)
    assert with_mapper.resolve(Options()) == manifest.resolve(Options())


def test_a_service_can_allow_less_than_the_bundle(manifest):
    capped = manifest.capped(Caps(steps=3, audio_seconds=2.5, size=40, previews=1))
    settings = capped.resolve(Options())
    assert (settings.steps, settings.size) == (3, 32)
    assert capped.limits.audio_seconds == 2.5
    with pytest.raises(InputError, match="steps must be 1 to 3, got 4"):
        capped.resolve(Options(steps=4))
    with pytest.raises(InputError, match="size must be one of 32, got 64"):
        capped.resolve(Options(size=64))
    with pytest.raises(BundleError, match="must allow a size of at least 32 pixels for this bundle, got 16"):
        manifest.capped(Caps(size=16))


def test_a_service_cannot_allow_more_than_the_bundle(manifest):
    assert manifest.capped(Caps(steps=10**6, audio_seconds=1e6, size=10**6, previews=10**6)) == manifest


@pytest.mark.parametrize(("name", "value"), [("steps", "3"), ("steps", True), ("seed", 1.0), ("format", 1)])
def test_options_of_another_type_are_rejected(name, value):
    with pytest.raises(InputError, match=f"{name} must be of type (int|str), got {type(value).__name__}"):
        Options(**{name: value})


def test_options_survive_their_text_form():
    options = Options(steps=5, seed=MAX_SEED, format="webp", preset="fast")
    assert Options.parse(options.as_text()) == options
    assert Options.parse({}) == Options()


def test_the_table_and_the_dataclasses_name_the_same_options():
    for each in (Options, Settings):
        assert [field.name for field in dataclasses.fields(each)] == list(OPTIONS)
    assert set(OptionValues.__annotations__) == set(OPTIONS) - {"output"}
