"""What readiness and liveness are made of, with a clock and canaries in the test's hands."""

import pytest

from voicestyle.serving.canary import Outcome
from voicestyle.serving.health import FRESH, HUNG, PERIOD, RETRY, Health


class FakeServer:
    def __init__(self):
        self.ended = None
        self.pids = [11]

    def worker_pids(self):
        return self.pids


class World:
    """A health with a clock and canaries in the test's hands."""

    def __init__(self):
        self.server = FakeServer()
        self.now = 1000.0
        self.says = (Outcome.ANSWERED, "a face")
        self.sent = 0
        self.health = Health(self.server, self._send, clock=lambda: self.now)

    def _send(self):
        self.sent += 1
        return self.says

    def after(self, seconds):
        self.now += seconds
        self.health.look()
        return self


@pytest.fixture
def world():
    return World()


def why_not(verdict):
    return {name: why for name, why in verdict.conditions.items() if why}


def test_ready_once_a_canary_sang(world):
    assert why_not(world.health.ready()) == {"canary": "none was sent yet"}
    world.health.look()
    assert world.health.ready().holds
    assert world.health.ready().json() == {
        "ok": True,
        "conditions": {"taking": "ok", "java": "ok", "model": "ok", "canary": "ok"},
    }


@pytest.mark.parametrize("outcome", [Outcome.FULL, Outcome.BUSY])
def test_a_full_service_is_ready_and_alive(world, outcome):
    world.says = (outcome, "503 overloaded")
    for _ in range(100):
        world.after(PERIOD)
    assert world.health.ready().holds
    assert world.health.live().holds


def test_a_canary_is_sent_once_a_period_and_not_per_probe(world):
    world.after(0).after(PERIOD / 2)
    for _ in range(10):
        world.health.ready()
        world.health.live()
    assert world.sent == 1
    world.after(PERIOD / 2)
    assert world.sent == 2


def test_a_failed_canary_is_tried_again_soon_and_says_why(world):
    world.after(0)
    world.says = (Outcome.FAILED, "500 internal after 0.1 s")
    world.after(PERIOD)
    assert why_not(world.health.ready()) == {"canary": "500 internal after 0.1 s"}
    assert world.health.live().holds
    world.says = (Outcome.ANSWERED, "a face")
    world.after(RETRY)
    assert world.health.ready().holds
    assert world.health.canaries == {
        Outcome.ANSWERED: 2,
        Outcome.FULL: 0,
        Outcome.BUSY: 0,
        Outcome.DRAINING: 0,
        Outcome.FAILED: 1,
    }


def test_a_new_worker_needs_a_canary_of_its_own(world):
    world.after(0)
    world.server.pids = []
    assert why_not(world.health.ready()) == {
        "model": "no living worker has the model loaded",
        "canary": "none was sent to this worker yet",
    }
    assert world.health.live().holds  # TorchServe starts another one
    world.server.pids = [12]
    assert why_not(world.health.ready()) == {"canary": "none was sent to this worker yet"}
    world.after(1)
    assert world.health.ready().holds
    assert world.sent == 2


def test_an_old_song_is_not_believed(world):
    world.after(0)
    world.now += FRESH + 1
    assert why_not(world.health.ready()) == {"canary": f"the last one is {FRESH + 1:.0f} s old"}


def test_without_a_good_canary_for_long_it_is_not_alive(world):
    world.after(0)
    world.says = (Outcome.FAILED, "no answer within 60 s")
    while world.now < 1000 + HUNG:
        assert world.health.live().holds
        world.after(RETRY)
    world.after(RETRY)
    assert why_not(world.health.live()) == {"progress": f"no canary was answered for {HUNG + RETRY:.0f} s"}
    world.health.drain()
    assert world.health.live().holds  # it is being stopped anyway


def test_a_slow_start_is_alive_and_not_ready(world):
    world.server.pids = []
    world.after(10 * HUNG)
    assert world.sent == 0
    assert world.health.live().holds
    assert not world.health.ready().holds


def test_a_service_that_drains_is_alive_and_not_ready(world):
    world.after(0)
    world.health.drain()
    assert why_not(world.health.ready()) == {"taking": "the service is stopping"}
    assert world.health.live().holds
    world.after(PERIOD)
    assert world.sent == 1


def test_without_java_it_is_neither(world):
    world.after(0)
    world.server.ended = -9
    assert why_not(world.health.ready()) == {"java": "TorchServe ended with status -9"}
    assert why_not(world.health.live()) == {"java": "TorchServe ended with status -9"}


def test_constants_fit_each_other():
    from voicestyle.serving.canary import ANSWER_SECONDS

    assert PERIOD + ANSWER_SECONDS < FRESH < HUNG
    assert HUNG > 120 + 300  # responseTimeout and startupTimeout of the model's configuration
