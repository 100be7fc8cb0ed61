"""Presets: named schedules, relative to the bundle's own."""

import io

import pytest
from msgspec.structs import replace
from PIL import Image

from voicestyle.engine import Schedule
from voicestyle.manifest import Manifest
from voicestyle.offline import generate_faces
from voicestyle.options import Options
from voicestyle.pipeline import Pipeline
from voicestyle.presets import DEFAULT, PRESETS, Preset


@pytest.fixture
def manifest(tiny_bundle):
    return replace(Manifest.read(tiny_bundle), learning_rate=0.004, default_steps=38)


def test_the_default_preset_is_the_bundles_schedule(manifest):
    assert manifest.resolve(Options()).preset == DEFAULT
    assert manifest.resolve(Options()).steps == 38
    assert Schedule.of(PRESETS[DEFAULT], manifest.learning_rate) == Schedule(base_lr=0.004)


def test_fast_takes_a_quarter_of_the_steps_by_default(manifest):
    settings = manifest.resolve(Options(preset="fast"))
    assert (settings.preset, settings.steps) == ("fast", 9)
    assert manifest.resolve(Options(preset="fast", steps=20)).steps == 20
    assert PRESETS["fast"].steps(50) == 12
    assert PRESETS["fast"].steps(100) == 25
    assert PRESETS["fast"].steps(1) == 1


def test_every_preset_makes_a_schedule(manifest):
    for preset in PRESETS.values():  # that of `instant` too, for the steps that may follow
        schedule = Schedule.of(preset, manifest.learning_rate)
        assert schedule.base_lr == pytest.approx(0.004 * preset.learning_rate)
        assert all(schedule.learning_rate(step / 12) > 0 for step in range(1, 12))


@pytest.mark.parametrize(("share", "from_mapper"), [(0, False), (-0.5, False), (1.5, False), (-0.5, True), (1.5, True)])
def test_a_share_is_of_the_default_steps(share, from_mapper):
    with pytest.raises(ValueError, match=r"share must be in \(0, 1\], or 0 from the mapper, got"):
        Preset(share=share, from_mapper=from_mapper)


def test_instant_takes_no_step_of_any_default():
    assert [PRESETS["instant"].steps(steps) for steps in (1, 50, 500)] == [0, 0, 0]


def test_requests_keep_their_presets_in_a_batch(tiny_bundle, samples):
    pipeline = Pipeline.load(tiny_bundle, capacity=2)

    def faces(*presets):
        options = {preset: Options(preset=preset, steps=8) for preset in presets}
        prepared = [(preset, pipeline.prepare(samples / "slt.wav", options[preset])) for preset in presets]
        return dict(generate_faces(pipeline, prepared))

    both = faces("fast", "default")
    assert both["fast"].trace == faces("fast")["fast"].trace
    assert both["default"].trace == faces("default")["default"].trace
    assert both["fast"].trace != both["default"].trace
    assert (both["fast"].settings.preset, both["fast"].settings.steps) == ("fast", 8)
    assert Image.open(io.BytesIO(both["fast"].image)).text["Preset"] == "fast"
