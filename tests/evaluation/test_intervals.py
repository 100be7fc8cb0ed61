"""Intervals over people."""

import numpy as np
import pytest
from scipy.stats import binomtest, norm

from voicestyle.evaluation.intervals import Bootstrap, Estimate, number_people, trial_weights, weighted_mean
from voicestyle.evaluation.verification import Pairs


def test_the_weights_of_trials_are_the_repetitions_of_a_resampled_set():
    people, (one, other) = number_people(["a", "b", "a", "c"], ["a", "c", "b", "a"])
    assert (people, one.tolist(), other.tolist()) == (3, [0, 1, 0, 2], [0, 2, 1, 0])
    weights = np.array([2.0, 3.0, 0.0])
    assert trial_weights(weights, one, other).tolist() == [2, 0, 6, 0]
    assert trial_weights(weights, one).tolist() == [2, 3, 2, 0]
    assert weighted_mean(np.array([1.0, 5.0]), np.array([3.0, 1.0])) == 2
    assert np.isnan(weighted_mean(np.ones(2), np.zeros(2)))


def test_an_interval_is_repeatable_and_depends_on_the_seed():
    values, persons = np.random.default_rng(0).random(40), np.repeat(np.arange(10), 4)
    one = Bootstrap(200, 1).mean(10, values, persons)
    assert one == Bootstrap(200, 1).mean(10, values, persons)
    assert one != Bootstrap(200, 2).mean(10, values, persons)
    assert one.value == pytest.approx(values.mean())
    assert one.low < one.value < one.high
    assert str(Estimate(0.5, 0.25, 0.75)) == "0.500 [0.250, 0.750]"


def test_trials_of_one_person_do_not_narrow_the_interval():
    """Twenty copies of a trial tell no more than one."""
    values = (np.arange(30) % 3 == 0).astype(float)
    few = Bootstrap(500, 0).mean(30, values, np.arange(30))
    many = Bootstrap(500, 0).mean(30, np.repeat(values, 20), np.repeat(np.arange(30), 20))
    assert (few.low, few.high) == pytest.approx((many.low, many.high))
    assert few.high - few.low > 0.25


@pytest.mark.long
@pytest.mark.parametrize(("of_probes", "of_others"), [(0.7, 0.7), (0.7, 0.0), (0.0, 0.7)])
def test_intervals_of_an_accuracy_cover_the_truth(of_probes, of_others):
    """People differ as probes and as candidates; a trial is right if the difference and its own noise is above 0."""
    people, per_person, runs = 40, 20, 120
    truth = norm.cdf(0.5 / np.sqrt(1 + of_probes**2 + of_others**2))
    source = np.random.default_rng(1)
    covered = 0
    for run in range(runs):
        effects = source.normal(0, 1, (2, people)) * [[of_probes], [of_others]]
        probe = np.repeat(np.arange(people), per_person)
        other = (probe + source.integers(1, people, len(probe))) % people
        right = 0.5 + effects[0][probe] - effects[1][other] + source.normal(0, 1, len(probe)) > 0
        interval = Bootstrap(200, run).share(people, right.astype(float), probe, other)
        covered += interval.low <= truth <= interval.high
    assert covered / runs >= 0.9


@pytest.mark.long
def test_intervals_of_an_auc_cover_the_truth():
    """Scores of pairs of one person are larger by 1, with an effect of each person and noise."""
    people, runs = 40, 100
    truth = norm.cdf(1 / np.sqrt(2 * (0.5**2 * 3 / 2 + 0.7**2)))  # var: one effect and noise; half of two and noise
    source = np.random.default_rng(3)
    one, other = (index.ravel() for index in np.meshgrid(np.arange(people), np.arange(people)))
    covered = 0
    for run in range(runs):
        effect = source.normal(0, 0.5, people)
        scores = (effect[one] + effect[other]) / 2 + (one == other) + source.normal(0, 0.7, len(one))
        interval = Pairs(scores, one == other, people, [one, other]).auc(Bootstrap(200, run))
        covered += interval.low <= truth <= interval.high
    assert covered / runs >= 0.85


def test_a_share_without_any_exception_gets_an_exact_interval():
    persons = np.repeat(np.arange(20), 2)
    always = Bootstrap(100, 0).share(20, np.ones(40), persons)
    exact = binomtest(20, 20).proportion_ci(0.95, method="exact")
    assert (always.value, always.low, always.high) == (1, pytest.approx(exact.low), 1)
    never = Bootstrap(100, 0).share(20, np.zeros(40), persons)
    assert (never.low, never.high) == (0, pytest.approx(1 - exact.low))


def test_no_interval_where_a_figure_is_mostly_undefined():
    alone = Bootstrap(100, 0).mean(1, np.array([0.5, 0.7]), np.zeros(2, np.intp))
    assert alone == Estimate(pytest.approx(0.6), None, None)
    assert str(alone) == "0.600"
    undefined = Bootstrap(100, 0).estimate(5, lambda weights: 1.0 if (weights == 1).all() else float("nan"))
    assert undefined == Estimate(1.0)


def test_too_few_resamples_are_an_error():
    with pytest.raises(ValueError, match="at least 100, got 99"):
        Bootstrap(99)
