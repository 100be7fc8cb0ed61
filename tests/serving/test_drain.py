"""The orderly end, step by step and without TorchServe."""

import pytest

from voicestyle.errors import ServerError
from voicestyle.serving import DrainOptions
from voicestyle.serving import drain as drain_module
from voicestyle.serving.drain import LAST_BYTES, POLL, drain


class FakeService:
    """A service whose state is a list over time: each look at it takes the next; the last one stays."""

    def __init__(self, in_flight=(0,), turned=(True,), unsent=(0,), ends_at=None):
        self.events = []
        self._in_flight, self._turned, self._unsent = (list(each) for each in (in_flight, turned, unsent))
        self._ends_at = ends_at
        self.now = 0.0

    @property
    def ended(self):
        return 1 if self._ends_at is not None and self.now >= self._ends_at else None

    def refuse(self):
        self.events.append(("refuse", self.now))

    def turned(self):
        return _next(self._turned)

    def in_flight(self):
        self.events.append(("look", self.now))
        return _next(self._in_flight)

    def unsent(self):
        return _next(self._unsent)

    def sleep(self, seconds):
        self.now += seconds

    def drain(self, **options):
        return drain(self, DrainOptions(**options), clock=lambda: self.now, sleep=self.sleep)


def _next(states):
    return states.pop(0) if len(states) > 1 else states[0]


def test_it_waits_until_two_looks_in_a_row_find_nothing():
    service = FakeService(in_flight=[3, 0, 1, 0, 0])
    assert service.drain()
    looks = [event for event in service.events if event[0] == "look"]
    assert len(looks) == 5
    assert service.events[0] == ("refuse", 0.0)
    assert service.now == pytest.approx(4 * POLL + LAST_BYTES)


def test_grace_comes_before_the_refusals():
    service = FakeService()
    assert service.drain(grace=7.0)
    assert service.events[0] == ("refuse", 7.0)


def test_what_cannot_be_told_is_not_idle():
    service = FakeService(in_flight=[None, None, 0])
    assert service.drain()
    assert len(service.events) == 1 + 4


def test_nothing_is_believed_before_the_handler_had_a_turn():
    service = FakeService(turned=[False, False, True])
    assert service.drain()
    assert service.now == pytest.approx(3 * POLL + LAST_BYTES)


def test_it_waits_for_bytes_that_clients_did_not_fetch():
    service = FakeService(unsent=[900, 10, 0])
    assert service.drain()
    assert service.now == pytest.approx(3 * POLL + LAST_BYTES)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"in_flight": [2]}, "the time is up with 2 requests unanswered"),
        ({"turned": [False]}, "the time is up with an unknown number of requests unanswered"),
    ],
)
def test_it_is_bounded(state, words, caplog):
    service = FakeService(**state)
    assert not service.drain(seconds=5.0)
    assert 5.0 <= service.now <= 5.0 + POLL
    assert words in caplog.text


def test_a_server_that_ends_meanwhile_is_an_error():
    service = FakeService(in_flight=[2], ends_at=3.0)
    with pytest.raises(ServerError, match="ended with status 1 before its requests were answered"):
        service.drain()


def test_the_options_check_themselves():
    with pytest.raises(ValueError, match="at least 0, got -1"):
        DrainOptions(seconds=-1)
    with pytest.raises(ValueError, match="at least 0"):
        DrainOptions(grace=-0.5)
    assert drain_module.CALM >= 2
