"""The numbers of a schedule, and those of one step of it."""

import math

import pytest

from tests.support.tiny_engine import STD
from voicestyle.engine import Schedule
from voicestyle.engine.step_numbers import StepNumbers


def test_schedule_values_and_checks():
    schedule = Schedule()
    times = [0.0, 0.025, 0.5, 0.875, 0.99]
    assert [schedule.learning_rate(t) for t in times] == pytest.approx(
        [0, 0.005, 0.01, 0.005, 0.01 * (0.5 - 0.5 * math.cos(math.pi * 0.04))]
    )
    assert [schedule.noise_strength(t, 2.0) for t in times] == pytest.approx(
        [0.1, 0.1 * (1 - 0.1 / 3) ** 2, 0.1 / 9, 0, 0]
    )


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"ramp_up": 0}, "ramp_up is a share"),
        ({"noise_ramp": 1.5}, "noise_ramp is a share"),
        ({"base_lr": 0}, "base_lr must be positive"),
        ({"noise": -0.1}, "noise must be at least 0, got -0.1"),
        ({"betas": (0.9, 1.0)}, "betas must be in"),
    ],
)
def test_invalid_schedules_are_rejected(wrong, message):
    with pytest.raises(ValueError, match=message):
        Schedule(**wrong)


def test_numbers_of_the_first_and_second_step():
    first, second = (StepNumbers.at(Schedule(), step, 20, STD) for step in (0, 1))
    assert first.step_size == 0
    assert first.noise_strength == pytest.approx(STD * 0.05)
    assert second.step_size == pytest.approx(0.01 / (1 - 0.9**2))
    assert second.second_correction == pytest.approx(math.sqrt(1 - 0.999**2))
    assert (second.first_weight, second.second_decay, second.second_weight) == (1 - 0.9, 0.999, 1 - 0.999)
