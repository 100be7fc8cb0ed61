"""`Pipeline.load` with as many slots as the device can step, by recorded clocks and memory."""

import logging
from types import SimpleNamespace

import pytest
import torch

from tests.support.recorded_meter import RecordedMeter
from voicestyle.errors import CaptureError
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


def test_every_module_is_warm_before_the_trials_and_again_with_all_slots(tiny_bundle, meter, monkeypatch):
    warm_up, seen = Pipeline.warm_up, []

    def watched(self):
        seen.append((self.capacity, len(meter.live)))
        warm_up(self)

    monkeypatch.setattr(Pipeline, "warm_up", watched)
    load(tiny_bundle, meter)
    assert seen == [(1, 0), (4, 4)]


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


class Captures:
    """Stands for CUDA graphs: captures nothing, and remembers the sizes of each capture."""

    def __init__(self):
        self.sizes = []

    def __call__(self, device):
        self.sizes.append([])
        return self.capture

    def capture(self, run):
        run()
        self.sizes[-1].append(run.args[0].stop)
        return run


@pytest.fixture
def captures(monkeypatch):
    """The capture of a GPU, on the CPU."""
    recorded = Captures()
    monkeypatch.setattr("voicestyle.pipeline.CudaCapture", recorded)
    capture = Pipeline.capture

    def capture_as_on_a_gpu(self, sizes=None):
        self.device = SimpleNamespace(type="cuda")
        capture(self, sizes)
        self.device = torch.device("cpu")

    monkeypatch.setattr(Pipeline, "capture", capture_as_on_a_gpu)
    return recorded


def test_a_trial_captures_its_size_and_the_one_that_is_captured_beside_it(tiny_bundle, meter, captures):
    pipeline = load(tiny_bundle, meter)
    assert captures.sizes == [[1], [2, 1], [4, 2], [8, 4], [4, 2, 1]]
    assert pipeline.computing.graphs == "on"


def test_without_graphs_the_plain_step_is_timed(tiny_bundle, meter, captures):
    assert load(tiny_bundle, meter, graphs="off").capacity == 4
    assert captures.sizes == []


def test_a_capture_that_fails_in_a_trial_is_an_error(tiny_bundle, meter, captures, monkeypatch):
    def fail(run):
        raise CaptureError("a step could not be captured as a CUDA graph: simulated")

    monkeypatch.setattr(captures, "capture", fail)
    with pytest.raises(CaptureError, match="simulated"):
        load(tiny_bundle, meter)
    assert len(captures.sizes) == 1


def test_a_capture_that_runs_out_of_memory_ends_the_trials(tiny_bundle, meter, captures, monkeypatch):
    capture = captures.capture

    def fail(run):
        if run.args[0].stop < 4:
            return capture(run)
        raise CaptureError("a step could not be captured") from torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(captures, "capture", fail)
    pipeline = load(tiny_bundle, meter)
    assert (pipeline.capacity, set(pipeline.computing.step_seconds)) == (2, {1, 2})
    assert pipeline.computing.graphs == "on"
