"""What a request may ask for: the table, the parser and the limits of bundle and service."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicestyle.errors import BundleError, InputError
from voicestyle.manifest import Caps, Manifest
from voicestyle.options import Options


@pytest.fixture(scope="module")
def manifest(tiny_bundle):
    return Manifest.read(tiny_bundle)


def test_every_option_in_any_spelling():
    words = {"Steps": " 5 ", "SEED": "7", "size": "64", "Format": "JPEG", "output": "json", "previews": "2"}
    assert Options.parse(words | {"Preset": "Fast "}) == Options(
        steps=5, seed=7, size=64, format="jpeg", output="json", previews=2, preset="fast"
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"stepps": "1"}, "unknown option 'stepps'; the options are steps, preset, seed, size, "),
        ({"stepps": "1"}, "format, output, previews; the nearest is 'steps'"),
        ({"fromat": "png"}, "the nearest is 'format'"),
        ({"steps": "1", "STEPS": "1"}, "option 'steps' was given twice"),
        ({"steps": "1.5"}, "steps must be an integer, got '1.5'"),
        ({"steps": "٣"}, "steps must be an integer"),
        ({"steps": "0"}, "steps must be at least 1, got 0"),
        ({"seed": "-1"}, "seed must be 0 to 9223372036854775807, got -1"),
        ({"seed": "9" * 20}, "seed must be 0 to 9223372036854775807"),
        ({"format": "gif"}, "format must be one of png, jpeg, webp, got 'gif'"),
        ({"output": ""}, "output must be one of image, json, got ''"),
        ({"preset": "slow"}, "preset must be one of default, fast, got 'slow'"),
        ({"previews": "-2"}, "previews must be at least 0, got -2"),
    ],
)  # fmt: skip
def test_what_breaks_a_rule_is_named(words, message):
    with pytest.raises(InputError) as caught:
        Options.parse(words)
    assert message in str(caught.value)
    assert (caught.value.code, caught.value.status) == ("bad_option", 400)


@given(st.dictionaries(st.text(), st.text(), max_size=3))
def test_any_words_are_options_or_one_short_error(words):
    message = ""
    try:
        Options.parse(words)
    except InputError as error:
        message = error.message
    assert len(message) < 400


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Options(steps=400), "steps must be 1 to 40, got 400"),
        (Options(size=65), "size must be one of 32, 64, got 65"),
        (Options(previews=17, steps=40), "previews must be 0 to 16, got 17"),
        (Options(previews=1, preset="fast"), "previews must be fewer than the 1 steps, got 1"),
        (Options(previews=5, steps=5), "previews must be fewer than the 5 steps, got 5"),
    ],
)
def test_limits_of_the_bundle(manifest, options, message):
    with pytest.raises(InputError, match=message):
        manifest.resolve(options)


def test_a_service_may_allow_less_than_the_bundle(manifest):
    capped = manifest.capped(Caps(steps=3, audio_seconds=2.5, size=40, previews=1))
    settings = capped.resolve(Options())
    assert (settings.steps, settings.size) == (3, 32)
    assert capped.limits.audio_seconds == 2.5
    with pytest.raises(InputError, match="steps must be 1 to 3, got 4"):
        capped.resolve(Options(steps=4))
    with pytest.raises(InputError, match="size must be one of 32, got 64"):
        capped.resolve(Options(size=64))
    with pytest.raises(BundleError, match="the bundle makes faces of 32 pixels at least; the service allows size 16"):
        manifest.capped(Caps(size=16))


def test_a_service_never_allows_more_than_the_bundle(manifest):
    assert manifest.capped(Caps(steps=10**6, audio_seconds=1e6, size=10**6, previews=10**6)) == manifest
