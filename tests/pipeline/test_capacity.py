"""`Pipeline.load` with as many slots as the device can step, by recorded clocks and memory."""

import logging

import pytest

from tests.support.recorded_meter import RecordedMeter
from voicestyle.manifest import Caps
from voicestyle.network_checks import tone
from voicestyle.offline import generate_face
from voicestyle.options import Options
from voicestyle.pipeline import Pipeline

SECONDS = {1: 0.01, 2: 0.012, 4: 0.02, 8: 0.2}
MEMORY = {size: 100 + 1000 * size for size in SECONDS}


@pytest.fixture
def meter(monkeypatch):
    """Recorded for each batch size; the pipelines that are made tell it the size of the trial."""
    recorded = RecordedMeter(SECONDS, MEMORY, free=10_000)
    full_engine = Pipeline._full_engine
    recorded.live, recorded.steps = [], []

    def watched(self):
        engine = full_engine(self)
        recorded.size = engine.capacity
        recorded.live.append(engine.live)
        recorded.steps += [item.steps for item in engine._rows.items.values()]
        return engine

    monkeypatch.setattr(Pipeline, "_full_engine", watched)
    return recorded


def load(bundle, meter, **options):
    return Pipeline.load(bundle, capacity=None, batched=True, meter=meter, **options)


def test_the_slots_are_those_that_the_device_can_step(tiny_bundle, samples, meter, caplog):
    with caplog.at_level(logging.INFO, "voicestyle.pipeline"):
        pipeline = load(tiny_bundle, meter)
    assert (pipeline.capacity, pipeline.computing.capacity) == (4, 4)
    assert pipeline.computing.step_seconds == pytest.approx(SECONDS)
    assert meter.live == [1, 2, 4, 8]
    assert set(meter.steps) == {pipeline.manifest.limits.steps}
    assert "4 slots in the batch, as a step of 8 takes longer than the 150 ms of an iteration" in caplog.text
    assert "1: 10 ms, 2: 12 ms, 4: 20 ms, 8: 200 ms" in caplog.text
    assert len(generate_face(pipeline, samples / "slt.wav", Options(steps=2)).trace) == 2


def test_the_time_of_an_iteration_is_the_caller_s(tiny_bundle, meter):
    assert load(tiny_bundle, meter, iteration_seconds=0.011).capacity == 1
    meter.live.clear()
    meter.step_seconds = SECONDS | {8: 0.03, 16: 1.0}
    meter.memory = dict.fromkeys(meter.step_seconds, 100)
    assert load(tiny_bundle, meter, iteration_seconds=0.5).capacity == 8


def test_few_allowed_steps_are_enough_for_a_trial(tiny_bundle, meter):
    assert load(tiny_bundle, meter, caps=Caps(steps=1)).capacity == 4


def test_the_largest_request_has_the_longest_voice_and_the_largest_image(tiny_bundle, meter, monkeypatch):
    seen = []

    def watched_tone(seconds):
        seen.append(seconds)
        return tone(seconds)

    monkeypatch.setattr("voicestyle.pipeline.tone", watched_tone)
    monkeypatch.setattr("voicestyle.pipeline.OnePass.render", lambda _, outcomes, sizes: seen.append(sizes))
    manifest = load(tiny_bundle, meter).manifest
    largest = [manifest.limits.audio_seconds, [max(manifest.sizes)]]
    assert any(seen[at : at + 4] == largest * 2 for at in range(len(seen)))


@pytest.mark.parametrize("options", [{}, {"batched": True}, {"batched": False}])
def test_a_cpu_has_eight_slots_without_a_trial(tiny_bundle, monkeypatch, options):
    monkeypatch.setattr("voicestyle.pipeline.measure_capacity", lambda *_: pytest.fail("a trial"))
    pipeline = Pipeline.load(tiny_bundle, capacity=None, **options)
    assert (pipeline.capacity, pipeline.computing.step_seconds) == (8, {})


def test_sequential_steps_have_eight_slots_without_a_trial(tiny_bundle, meter):
    pipeline = Pipeline.load(tiny_bundle, capacity=None, batched=False, meter=meter)
    assert (pipeline.capacity, pipeline.computing.step_seconds, meter.live) == (8, {}, [])


def test_a_number_of_slots_is_not_measured(tiny_bundle, meter):
    pipeline = Pipeline.load(tiny_bundle, capacity=5, batched=True, meter=meter)
    assert (pipeline.capacity, pipeline.computing.step_seconds, meter.live) == (5, {}, [])
