from __future__ import annotations

import pickle

import pytest

from cmpc2 import CallerError, CheckpointError


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("bad_option", 400),
        ("too_large", 413),
        ("too_long", 413),
        ("not_audio", 415),
        ("no_speech", 422),
        ("too_short", 422),
    ],
)
def test_each_code_has_its_status(code, status):
    error = CallerError(code, "the rule; what was received")
    assert (error.code, error.status, error.message) == (code, status, str(error))
    assert isinstance(error, ValueError)


def test_a_status_may_be_given():
    assert CallerError("too_large", "…", 400).status == 400


def test_errors_travel_between_processes():
    error = pickle.loads(pickle.dumps(CallerError("too_long", "at most 60 s", 413)))
    assert (error.code, error.status, error.message) == ("too_long", 413, "at most 60 s")


def test_a_wrong_checkpoint_is_not_the_callers_fault():
    assert not issubclass(CheckpointError, CallerError)
