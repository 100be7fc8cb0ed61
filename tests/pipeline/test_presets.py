"""Presets: schedules by name, in terms of the bundle's own."""

import io
from dataclasses import replace

import pytest
from PIL import Image

from voicestyle.engine import Schedule
from voicestyle.manifest import Manifest
from voicestyle.options import Options
from voicestyle.pipeline import Pipeline
from voicestyle.presets import DEFAULT, PRESETS, Preset


@pytest.fixture
def manifest(tiny_bundle):
    return replace(Manifest.read(tiny_bundle), learning_rate=0.004, default_steps=38)


def test_the_default_is_the_bundles_schedule_as_published(manifest):
    assert manifest.resolve(Options()).preset == DEFAULT
    assert manifest.resolve(Options()).steps == 38
    assert Schedule.of(PRESETS[DEFAULT], manifest.learning_rate) == Schedule(base_lr=0.004)


def test_fast_takes_a_quarter_of_the_steps_unless_told_otherwise(manifest):
    settings = manifest.resolve(Options(preset="fast"))
    assert (settings.preset, settings.steps) == ("fast", 9)
    assert manifest.resolve(Options(preset="fast", steps=20)).steps == 20
    assert PRESETS["fast"].steps(50) == 12
    assert PRESETS["fast"].steps(100) == 25
    assert PRESETS["fast"].steps(1) == 1


def test_every_preset_makes_a_schedule(manifest):
    for preset in PRESETS.values():
        schedule = Schedule.of(preset, manifest.learning_rate)
        assert schedule.base_lr == pytest.approx(0.004 * preset.learning_rate)
        assert all(schedule.learning_rate(step / 12) > 0 for step in range(1, 12))


@pytest.mark.parametrize("share", [0, -0.5, 1.5])
def test_a_share_is_of_the_default_steps(share):
    with pytest.raises(ValueError, match="share is of the default steps"):
        Preset(share=share)


def test_a_request_keeps_its_preset_among_others(tiny_bundle, samples):
    def faces(presets):
        pipeline = Pipeline.load(tiny_bundle, capacity=2)
        for preset in presets:
            pipeline.submit(preset, samples / "slt.wav", Options(preset=preset, steps=8))
        pipeline.step(8)
        return {preset: pipeline.finish(preset) for preset in presets}

    together = faces(["fast", "default"])
    assert together["fast"].trace == faces(["fast"])["fast"].trace
    assert together["default"].trace == faces(["default"])["default"].trace
    assert together["fast"].trace != together["default"].trace
    assert (together["fast"].preset, together["fast"].steps) == ("fast", 8)
    assert Image.open(io.BytesIO(together["fast"].image)).text["Preset"] == "fast"
