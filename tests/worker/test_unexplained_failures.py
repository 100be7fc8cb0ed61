"""Three iterations in a row in which no step could be taken, or no face without steps be made, end the worker."""

import pytest

from tests.support.failing_pipeline import QUICK

BAD = b"no image"


@pytest.fixture
def instant(frontend):
    """Send requests without steps with this audio at once, and wait for their responses."""

    def send(*audio):
        for number, each in enumerate(audio):
            frontend.post(f"{len(frontend.responses)}-{number}", each, **QUICK)
        frontend.run()

    return send


def test_three_failed_faces_without_steps_in_a_row_end_the_worker(instant, exits):
    for _ in range(3):
        assert not exits.timers
        instant(BAD)
    assert len(exits.timers) == 1


def test_a_face_without_steps_begins_the_count_again(instant, exits):
    for audio in (BAD, BAD, b"voice", BAD, BAD, b"voice"):
        instant(audio)
    assert not exits.timers


def test_a_step_begins_the_count_again(instant, frontend, exits):
    for _ in range(3):
        instant(BAD, BAD)
        frontend.post(f"step{len(frontend.responses)}")
        frontend.run()
    assert not exits.timers


def test_many_failures_in_one_iteration_count_once(instant, exits):
    instant(*[BAD] * 4)
    instant(*[BAD] * 4)
    assert not exits.timers


def test_a_failure_beside_a_face_does_not_count(instant, exits):
    for _ in range(4):
        instant(BAD, b"voice")
    assert not exits.timers


def test_failed_steps_count_although_faces_without_steps_succeed(instant, frontend, pipeline, exits):
    pipeline.fails_at_step = True
    for number in range(3):
        assert not exits.timers
        frontend.post(f"step{number}")
        instant(b"voice")
    assert len(exits.timers) == 1
