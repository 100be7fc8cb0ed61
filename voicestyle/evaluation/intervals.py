"""Confidence intervals from a bootstrap over people.

Two trials of one person depend on each other, so whole people are drawn with replacement (cluster bootstrap), never
trials. A trial between two people counts once for each pair of their copies (the bootstrap of nodes in a network; the
pigeonhole bootstrap of Owen, 2007, doi:10.1214/07-AOAS122), which is exact for variation between people and somewhat
too wide where most of the variation is chance within a trial.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray
from scipy.stats import binomtest

Weights = NDArray[np.float64]
CONFIDENCE = 0.95
MIN_DEFINED = 0.5  # share of resampled sets on which the statistic must be defined


class Estimate(Struct, frozen=True):
    """A figure and its 95 % interval; low and high are None where no interval can be computed."""

    value: float
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        interval = "" if self.low is None or self.high is None else f" [{self.low:.3f}, {self.high:.3f}]"
        return f"{self.value:.3f}{interval}"


@dataclass(frozen=True)
class Bootstrap:
    """How often people are resampled, and from which seed."""

    resamples: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.resamples < 100:
            raise ValueError(f"resamples must be at least 100, got {self.resamples}")

    def estimate(self, people: int, statistic: Callable[[Weights], float]) -> Estimate:
        """The statistic and its percentile interval.

        statistic: from the weight [people] of each person to a figure; nan where the figure is undefined, as the AUC
        of one person alone. The value is that of equal weights; the interval is left out where the figure is undefined
        for more than half of the resampled sets.
        """
        value = statistic(np.ones(people))
        source = np.random.Generator(np.random.Philox(self.seed))
        drawn = source.multinomial(people, np.full(people, 1 / people), size=self.resamples)
        figures = np.array([statistic(weights.astype(np.float64)) for weights in drawn])
        figures = figures[np.isfinite(figures)]
        if people < 2 or len(figures) < MIN_DEFINED * self.resamples:
            return Estimate(value)
        tail = (1 - CONFIDENCE) / 2
        low, high = np.quantile(figures, [tail, 1 - tail])
        return Estimate(value, float(low), float(high))

    def mean(self, people: int, values: NDArray[np.float64], *persons: NDArray[np.intp]) -> Estimate:
        """The mean of values [M], of which value m depends on the people persons[0][m], persons[1][m] …"""
        return self.estimate(people, lambda weights: weighted_mean(values, trial_weights(weights, *persons)))

    def share(self, people: int, values: NDArray[np.float64], *persons: NDArray[np.intp]) -> Estimate:
        """The mean of shares in [0, 1].

        If all are 0 or all are 1, no resampled set differs, and the interval is that of Clopper and Pearson with one
        trial for each person of persons[0].
        """
        estimate = self.mean(people, values, *persons)
        if estimate.low is None or estimate.value not in (0, 1):
            return estimate
        count = len(np.unique(persons[0]))
        exact = binomtest(round(estimate.value) * count, count).proportion_ci(CONFIDENCE, method="exact")
        return Estimate(estimate.value, float(exact.low), float(exact.high))


def trial_weights(weights: Weights, *persons: NDArray[np.intp]) -> Weights:
    """The weight [M] of trials in a resampled set: the product over the different people of a trial."""
    first, *others = persons
    product = weights[first]
    for person in others:
        product = product * np.where(person == first, 1.0, weights[person])
    return product


def weighted_mean(values: NDArray[np.float64], weights: Weights) -> float:
    """The weighted mean; nan where all weights are 0."""
    total = weights.sum()
    return float(values @ weights / total) if total else float("nan")


def number_people(*columns: Sequence[str]) -> tuple[int, list[NDArray[np.intp]]]:
    """The number of different people in columns of names, and each column as indices 0 … people − 1."""
    names = {name: index for index, name in enumerate(dict.fromkeys(name for column in columns for name in column))}
    return len(names), [np.array([names[name] for name in column], np.intp) for column in columns]
