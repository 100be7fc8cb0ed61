"""How long an iteration takes, by a clock that the pipeline advances."""

from types import SimpleNamespace

import pytest
from prometheus_client import CollectorRegistry

from tests.support.fake_torchserve import FakePipeline
from voicestyle.scheduling import StepBudget
from voicestyle.worker.continuous_batch import ContinuousBatch
from voicestyle.worker.metrics import Metrics
from voicestyle.worker.request_parser import Row
from voicestyle.worker.service_config import ServiceConfig

ITERATION_SECONDS = ServiceConfig().iteration_seconds


class SlowPipeline(FakePipeline):
    """Takes time: seconds per step and request, per prepared request, and per rendered face."""

    def __init__(self, clock, step=0.0, prepare=0.0, render=0.0, batched=True):
        super().__init__(capacity=8, batched=batched)
        self.clock = clock
        self.rendered_at = {}
        self.seconds = SimpleNamespace(step=step, prepare=prepare, render=render)

    def prepare(self, *args):
        self.clock.now += self.seconds.prepare
        return super().prepare(*args)

    def step(self, requests):
        self.clock.now += self.seconds.step * len(requests)
        super().step(requests)

    def render(self, request):
        self.clock.now += self.seconds.render
        self.rendered_at[request.id] = self.clock.now
        return super().render(request)


@pytest.fixture
def clock():
    return SimpleNamespace(now=0.0)


def batch_of(pipeline):
    return ContinuousBatch(
        pipeline, ServiceConfig(), metrics=Metrics(CollectorRegistry()), clock=lambda: pipeline.clock.now
    )


def rows(ids, steps=500):
    return [Row(key, "http", {"body": b"voice"}, {"X-VoiceStyle-Steps": str(steps)}) for key in ids]


@pytest.mark.parametrize(("step", "live"), [(0.002, 1), (0.002, 8), (0.02, 3), (0.02, 1)])
def test_an_iteration_takes_100_to_200_ms(clock, step, live):
    batch = batch_of(SlowPipeline(clock, step=step))
    ids = [str(number) for number in range(live)]
    batch.iterate(rows(ids))
    for _ in range(5):
        began = clock.now
        batch.iterate(rows(ids))
        assert 0.1 <= clock.now - began <= 0.2


@pytest.mark.parametrize("step", [0.15, 0.04, 0.002])
def test_many_sequential_requests_make_no_iteration_longer(clock, step):
    pipeline = SlowPipeline(clock, step=step, batched=False)
    batch, ids = batch_of(pipeline), "abcdefgh"
    for _ in range(20):
        began = clock.now
        batch.iterate(rows(ids))
        assert clock.now - began <= 0.2
    taken = list(pipeline.steps.values())
    assert min(taken) >= 1
    assert sum(taken) >= 20


def test_a_slow_step_is_taken_alone(clock):
    pipeline = SlowPipeline(clock, step=3.0)
    batch = batch_of(pipeline)
    for _ in range(3):
        batch.iterate(rows("a"))
    assert pipeline.calls == [1] * 3


def test_the_budget_keeps_a_grown_batch_within_its_time():
    budget = StepBudget(0.15)
    budget.record(batch=1, steps=1, seconds=0.05)
    assert budget.steps(1) == 3
    assert budget.steps(8) == 1
    budget.record(batch=8, steps=1, seconds=0.05)  # as on a GPU, where a full batch costs no more
    assert budget.steps(8) == 3


def test_an_iteration_ends_when_a_request_finishes(clock):
    pipeline = SlowPipeline(clock, step=0.001)
    batch = batch_of(pipeline)
    both = rows("a", steps=200) + rows("b", steps=3)
    batch.iterate(both)
    responses = batch.iterate(both)
    assert list(responses) == ["b"]
    assert pipeline.steps["a"] == 3


def test_many_new_requests_do_not_stop_the_running_ones(clock):
    pipeline = SlowPipeline(clock, step=0.01, prepare=0.1)
    batch = batch_of(pipeline)
    batch.iterate(rows("a"))
    crowd = rows("abcdefgh")
    began, taken = clock.now, pipeline.steps["a"]
    batch.iterate(crowd)
    assert clock.now - began < 2 * ITERATION_SECONDS + 0.1
    assert pipeline.steps["a"] > taken
    assert 1 < len(pipeline.steps) < 8
    for _ in range(4):
        batch.iterate(crowd)
    assert len(pipeline.steps) == 8


def test_faces_are_rendered_over_several_iterations(clock):
    pipeline = SlowPipeline(clock, render=1.0)
    batch = batch_of(pipeline)
    waiting = rows("abcd", steps=1)
    rendered, answered = [], []
    while waiting:
        responses = batch.iterate(waiting)
        rendered.append(pipeline.rendered)
        answered += responses
        waiting = [row for row in waiting if row.id not in responses]
    assert rendered[:4] == [1, 2, 3, 4]
    assert sorted(answered) == list("abcd")
    assert pipeline.calls == [4]


def test_a_face_without_steps_waits_for_no_optimisation(clock):
    pipeline = SlowPipeline(clock, step=0.1, prepare=0.05, render=0.2, batched=False)
    batch = batch_of(pipeline)
    long = rows("abcdefgh")  # all slots
    for _ in range(10):
        batch.iterate(long)
    assert len(pipeline.steps) == 8
    began, taken = clock.now, sum(pipeline.steps.values())
    instant = rows("i", steps=0)
    responses = batch.iterate(long + instant)
    assert pipeline.rendered_at["i"] - began == pytest.approx(0.25)  # its own work alone
    while "i" not in responses:  # a thread encodes the image
        responses = batch.iterate(long + instant)
        assert clock.now - began < 3 * ITERATION_SECONDS + 0.25
    assert sum(pipeline.steps.values()) > taken


def test_many_faces_without_steps_do_not_stop_the_optimisations(clock):
    pipeline = SlowPipeline(clock, step=0.05, render=0.1, batched=False)
    batch = batch_of(pipeline)
    batch.iterate(rows("a"))
    answered, ids, iterations = 0, [f"i{number}" for number in range(12)], 0
    while ids:
        before = pipeline.steps["a"], clock.now
        responses = batch.iterate(rows("a") + rows(ids, steps=0))
        ids = [each for each in ids if each not in responses]
        answered += len(responses)
        iterations += 1
        assert pipeline.steps["a"] > before[0]
        assert clock.now - before[1] <= 2 * ITERATION_SECONDS + 0.1 + 1e-9
    assert answered == 12
    assert iterations >= 6
