"""How long a call takes, by a clock that the pipeline advances."""

from types import SimpleNamespace

import pytest
from prometheus_client import CollectorRegistry

from tests.support.fake_torchserve import FakePipeline
from voicestyle.worker.continuous_batch import ContinuousBatch
from voicestyle.worker.metrics import Metrics
from voicestyle.worker.request_parser import Row
from voicestyle.worker.service_config import ServiceConfig
from voicestyle.worker.step_budget import StepBudget

TURN_SECONDS = ServiceConfig().iteration_seconds


class SlowPipeline(FakePipeline):
    """Takes its time: seconds a step and request, a submission, and a rendered face."""

    def __init__(self, clock, step=0.0, prepare=0.0, render=0.0):
        super().__init__(capacity=8)
        self.clock = clock
        self.seconds = SimpleNamespace(step=step, prepare=prepare, render=render)

    def prepare(self, *args):
        self.clock.now += self.seconds.prepare
        return super().prepare(*args)

    def advance(self):
        super().advance()
        self.clock.now += self.seconds.step * (self.live if self.together else 1)

    def render(self, *args):
        self.clock.now += self.seconds.render
        return super().render(*args)


@pytest.fixture
def clock():
    return SimpleNamespace(now=0.0)


def batch_of(pipeline):
    return ContinuousBatch(pipeline, metrics=Metrics(CollectorRegistry()), clock=lambda: pipeline.clock.now)


def rows(ids, steps=500):
    headers = {"url_path": "/predictions/voicestyle", "X-VoiceStyle-Steps": str(steps)}
    return [Row(key, {"body": b"voice"}, headers) for key in ids]


@pytest.mark.parametrize(("step", "live"), [(0.002, 1), (0.002, 8), (0.02, 3), (0.02, 1)])
def test_a_call_lasts_100_to_200_ms(clock, step, live):
    batch = batch_of(SlowPipeline(clock, step=step))
    ids = [str(number) for number in range(live)]
    batch.turn(rows(ids))
    for _ in range(5):
        began = clock.now
        batch.turn(rows(ids))
        assert 0.1 <= clock.now - began <= 0.2


@pytest.mark.parametrize("step", [0.15, 0.04, 0.002])
def test_where_requests_step_one_by_one_a_crowd_makes_no_call_longer(clock, step):
    pipeline = SlowPipeline(clock, step=step)
    pipeline.together = False
    batch, ids = batch_of(pipeline), "abcdefgh"
    for _ in range(20):
        began = clock.now
        batch.turn(rows(ids))
        assert clock.now - began <= 0.2
    taken = [request.step for request in pipeline.requests.values()]
    assert max(taken) - min(taken) <= 1
    assert sum(taken) >= 20


def test_a_slow_step_is_taken_alone(clock):
    pipeline = SlowPipeline(clock, step=3.0)
    batch = batch_of(pipeline)
    for _ in range(3):
        batch.turn(rows("a"))
    assert pipeline.calls == [1] * 3


def test_pace_keeps_a_grown_batch_within_its_time():
    pace = StepBudget(0.15)
    pace.note(batch=1, steps=1, seconds=0.05)
    assert pace.steps(1) == 3
    assert pace.steps(8) == 1
    pace.note(batch=8, steps=1, seconds=0.05)  # as on a GPU, where a full batch costs no more
    assert pace.steps(8) == 3


def test_no_step_beyond_the_first_to_finish(clock):
    pipeline = SlowPipeline(clock, step=0.001)
    batch = batch_of(pipeline)
    both = rows("a", steps=200) + rows("b", steps=3)
    batch.turn(both)
    answers = batch.turn(both)
    assert list(answers) == ["b"]
    assert pipeline.requests["a"].step == 3


def test_a_crowd_of_newcomers_does_not_stop_those_who_run(clock):
    pipeline = SlowPipeline(clock, step=0.01, prepare=0.1)
    batch = batch_of(pipeline)
    batch.turn(rows("a"))
    crowd = rows("abcdefgh")
    began, taken = clock.now, pipeline.requests["a"].step
    batch.turn(crowd)
    assert clock.now - began < 2 * TURN_SECONDS + 0.1
    assert pipeline.requests["a"].step > taken
    assert 1 < pipeline.live < 8
    for _ in range(4):
        batch.turn(crowd)
    assert pipeline.live == 8


def test_faces_that_are_done_together_are_rendered_over_several_calls(clock):
    pipeline = SlowPipeline(clock, render=1.0)
    batch = batch_of(pipeline)
    waiting = rows("abcd", steps=1)
    left, answered = [], []
    while waiting:
        answers = batch.turn(waiting)
        left.append(pipeline.live)
        answered += answers
        waiting = [row for row in waiting if row.id not in answers]
    assert left[:4] == [3, 2, 1, 0]
    assert sorted(answered) == list("abcd")
    assert pipeline.calls == [4]
