"""The pauses between attempts and the limits of a request."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicestyle.client import APIConnectionError, BadRequestError, Client, GrpcClient, OverloadedError
from voicestyle.client.retry import FIRST_DELAY, MAX_DELAY, Attempts, Limits, retry_delay


@given(failures=st.integers(1, 3000), retry_after=st.none() | st.floats(0, 100), seed=st.integers(0, 9))
def test_pause_has_full_jitter_on_top_of_retry_after(failures, retry_after, seed):
    drawn = random.Random(seed).random()
    longest = FIRST_DELAY
    for _ in range(min(failures - 1, 10)):
        longest = min(2 * longest, MAX_DELAY)
    error = OverloadedError("", retry_after=retry_after)
    assert retry_delay(failures, error, drawn) == (retry_after or 0) + longest * drawn


def test_pauses_double_up_to_the_longest():
    delays = [retry_delay(failures, APIConnectionError(""), 1.0) for failures in range(1, 8)]
    assert delays == [0.5, 1, 2, 4, 8, 15, 15]
    assert retry_delay(1, APIConnectionError(""), 0.0) == 0


def test_attempts_end_after_max_retries(clock):
    attempts, error = Attempts(Limits(10, 5, 1000, max_retries=2)), APIConnectionError("")
    for number in (2, 3):
        attempts.begin()
        assert attempts.failed(error).attempt == number
    attempts.begin()
    with pytest.raises(APIConnectionError):
        attempts.failed(error)


def test_final_errors_end_the_attempts(clock):
    attempts = Attempts(Limits(10, 5, 1000, max_retries=2))
    attempts.begin()
    with pytest.raises(BadRequestError):
        attempts.failed(BadRequestError(""))


def test_last_attempt_has_the_rest_of_the_deadline(clock):
    attempts = Attempts(Limits(timeout=30, connect_timeout=5, deadline=50, max_retries=7))
    assert attempts.begin() == 30
    clock.now += 29
    assert attempts.begin() == 21
    clock.now += 30
    assert attempts.begin() == 0.001


@pytest.mark.parametrize(
    "make", [lambda **limits: Client("http://here", **limits), lambda **limits: GrpcClient("here:1", **limits)]
)
@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"max_retries": -1}, "max_retries must be at least 0, got -1"),
        ({"timeout": 0}, "timeout must be more than 0 seconds, got 0"),
        ({"connect_timeout": -1}, "connect_timeout must be more than 0 seconds, got -1"),
        ({"deadline": float("nan")}, "deadline must be more than 0 seconds, got nan"),
    ],
)
def test_clients_check_their_limits(make, limits, message):
    with pytest.raises(ValueError, match=message):
        make(**limits)
