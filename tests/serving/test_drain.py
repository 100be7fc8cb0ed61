"""Graceful shutdown, step by step, without TorchServe."""

import pytest

from voicestyle.errors import ServerError
from voicestyle.serving import DrainOptions
from voicestyle.serving.drain import IDLE_POLLS, LAST_BYTES, POLL, drain


class FakeService:
    """A service whose state is a list over time: each poll reads the next item; the last one stays."""

    def __init__(self, in_flight=(0,), completes=(True,), unsent=(0,), ends_at=None):
        self.events = []
        self._in_flight, self._completes, self._unsent = (list(each) for each in (in_flight, completes, unsent))
        self._ends_at = ends_at
        self.now = 0.0

    @property
    def ended(self):
        return 1 if self._ends_at is not None and self.now >= self._ends_at else None

    def stop_admission(self):
        self.events.append(("stop", self.now))

    def completes_iteration(self):
        return _next(self._completes)

    def in_flight(self):
        self.events.append(("poll", self.now))
        return _next(self._in_flight)

    def unsent(self):
        return _next(self._unsent)

    def sleep(self, seconds):
        self.now += seconds

    def drain(self, **options):
        return drain(self, DrainOptions(**options), clock=lambda: self.now, sleep=self.sleep)


def _next(states):
    return states.pop(0) if len(states) > 1 else states[0]


def test_two_idle_polls_in_a_row_end_the_drain():
    service = FakeService(in_flight=[3, 0, 1, 0, 0])
    assert service.drain()
    polls = [event for event in service.events if event[0] == "poll"]
    assert len(polls) == 5
    assert service.events[0] == ("stop", 0.0)
    assert service.now == pytest.approx(4 * POLL + LAST_BYTES)


def test_grace_comes_before_the_rejections():
    service = FakeService()
    assert service.drain(grace=7.0)
    assert service.events[0] == ("stop", 7.0)


def test_an_unknown_count_is_not_idle():
    service = FakeService(in_flight=[None, None, 0])
    assert service.drain()
    assert len(service.events) == 1 + 4


def test_no_count_is_used_before_a_handler_iteration():
    service = FakeService(completes=[False, False, True])
    assert service.drain()
    assert service.now == pytest.approx(3 * POLL + LAST_BYTES)


def test_drain_waits_for_unread_bytes():
    service = FakeService(unsent=[900, 10, 0])
    assert service.drain()
    assert service.now == pytest.approx(3 * POLL + LAST_BYTES)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"in_flight": [2]}, "the time is up with 2 requests unfinished"),
        ({"completes": [False]}, "the time is up with an unknown number of requests unfinished"),
    ],
)
def test_drain_ends_at_its_deadline(state, message, caplog):
    service = FakeService(**state)
    assert not service.drain(seconds=5.0)
    assert 5.0 <= service.now <= 5.0 + POLL
    assert message in caplog.text


def test_a_server_that_ends_while_draining_is_an_error():
    service = FakeService(in_flight=[2], ends_at=3.0)
    with pytest.raises(ServerError, match="ended with status 1 before all requests were finished"):
        service.drain()


def test_drain_options_are_validated():
    with pytest.raises(ValueError, match="at least 0, got -1"):
        DrainOptions(seconds=-1)
    with pytest.raises(ValueError, match="at least 0"):
        DrainOptions(grace=-0.5)
    assert IDLE_POLLS >= 2
