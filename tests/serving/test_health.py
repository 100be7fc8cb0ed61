"""Readiness and liveness, with a fake clock and fake canaries."""

import pytest

from voicestyle.serving.canary import CanaryResult, Outcome
from voicestyle.serving.health import FRESH, HUNG, PERIOD, RETRY, Health


class FakeServer:
    def __init__(self):
        self.ended = None
        self.pids = [11]

    def worker_pids(self):
        return self.pids


class World:
    """A Health with a fake clock and fake canaries."""

    def __init__(self):
        self.server = FakeServer()
        self.now = 1000.0
        self.result = CanaryResult(Outcome.ANSWERED, "a face")
        self.sent = 0
        self.health = Health(self.server, self._send, clock=lambda: self.now)

    def _send(self):
        self.sent += 1
        return self.result

    def after(self, seconds):
        self.now += seconds
        self.health.update()
        return self


@pytest.fixture
def world():
    return World()


def unmet(conditions):
    return {name: reason for name, reason in conditions.reasons.items() if reason}


def test_ready_after_a_successful_canary(world):
    assert unmet(world.health.ready()) == {"canary": "none was sent yet"}
    world.health.update()
    assert world.health.ready().met
    assert world.health.ready().json() == {
        "ok": True,
        "conditions": {"admission": "ok", "java": "ok", "model": "ok", "canary": "ok"},
    }


@pytest.mark.parametrize("outcome", [Outcome.FULL, Outcome.BUSY])
def test_a_service_with_a_full_queue_is_ready_and_live(world, outcome):
    world.result = CanaryResult(outcome, "503 overloaded")
    for _ in range(100):
        world.after(PERIOD)
    assert world.health.ready().met
    assert world.health.live().met


def test_canaries_are_sent_by_period_not_by_probe(world):
    world.after(0).after(PERIOD / 2)
    for _ in range(10):
        world.health.ready()
        world.health.live()
    assert world.sent == 1
    world.after(PERIOD / 2)
    assert world.sent == 2


def test_a_failed_canary_is_retried_and_reported(world):
    world.after(0)
    world.result = CanaryResult(Outcome.FAILED, "500 internal after 0.1 s")
    world.after(PERIOD)
    assert unmet(world.health.ready()) == {"canary": "500 internal after 0.1 s"}
    assert world.health.live().met
    world.result = CanaryResult(Outcome.ANSWERED, "a face")
    world.after(RETRY)
    assert world.health.ready().met
    assert world.health.canaries == {
        Outcome.ANSWERED: 2,
        Outcome.FULL: 0,
        Outcome.BUSY: 0,
        Outcome.DRAINING: 0,
        Outcome.FAILED: 1,
    }


def test_a_new_worker_needs_a_new_canary(world):
    world.after(0)
    world.server.pids = []
    assert unmet(world.health.ready()) == {
        "model": "no running worker has the model loaded",
        "canary": "none was sent to this worker yet",
    }
    assert world.health.live().met  # TorchServe starts another one
    world.server.pids = [12]
    assert unmet(world.health.ready()) == {"canary": "none was sent to this worker yet"}
    world.after(1)
    assert world.health.ready().met
    assert world.sent == 2


def test_an_old_canary_does_not_count(world):
    world.after(0)
    world.now += FRESH + 1
    assert unmet(world.health.ready()) == {"canary": f"the last one is {FRESH + 1:.0f} s old"}


def test_not_live_long_after_the_last_successful_canary(world):
    world.after(0)
    world.result = CanaryResult(Outcome.FAILED, "no response within 60 s")
    while world.now < 1000 + HUNG:
        assert world.health.live().met
        world.after(RETRY)
    world.after(RETRY)
    assert unmet(world.health.live()) == {"progress": f"no canary was successful for {HUNG + RETRY:.0f} s"}
    world.health.drain()
    assert world.health.live().met  # it is shutting down anyway


def test_a_slow_start_is_live_and_not_ready(world):
    world.server.pids = []
    world.after(10 * HUNG)
    assert world.sent == 0
    assert world.health.live().met
    assert not world.health.ready().met


def test_a_draining_service_is_live_and_not_ready(world):
    world.after(0)
    world.health.drain()
    assert unmet(world.health.ready()) == {"admission": "the service is shutting down"}
    assert world.health.live().met
    world.after(PERIOD)
    assert world.sent == 1


def test_without_java_it_is_neither_live_nor_ready(world):
    world.after(0)
    world.server.ended = -9
    assert unmet(world.health.ready()) == {"java": "TorchServe ended with status -9"}
    assert unmet(world.health.live()) == {"java": "TorchServe ended with status -9"}


def test_intervals_and_timeouts_are_consistent():
    from voicestyle.serving.canary import RESPONSE_SECONDS

    assert PERIOD + RESPONSE_SECONDS < FRESH < HUNG
    assert HUNG > 120 + 300  # responseTimeout and startupTimeout of the model's configuration
