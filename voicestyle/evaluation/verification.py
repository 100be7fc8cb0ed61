"""Verification: are a recording and an image of one person? AUC and equal error rate of their cosine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from voicestyle.evaluation.errors import EvaluationError
from voicestyle.evaluation.intervals import Bootstrap, Estimate, Weights, number_people, trial_weights
from voicestyle.evaluation.lists import Verification
from voicestyle.evaluation.people import SAME, People
from voicestyle.evaluation.report import VerificationResult
from voicestyle.evaluation.trials import Features, cosines

_ROC_POINTS = 101


@dataclass(frozen=True)
class Pairs:
    """Scores [M] and labels [M] of pairs (True: one person), and the two persons of each as indices [M]."""

    scores: NDArray[np.float64]
    labels: NDArray[np.bool_]
    people: int
    persons: list[NDArray[np.intp]]

    def auc(self, bootstrap: Bootstrap) -> Estimate:
        """The area under the ROC curve: how often a pair of one person is above one of two; a tie is one half."""
        return self._estimate(bootstrap, auc)

    def eer(self, bootstrap: Bootstrap) -> Estimate:
        """The equal error rate."""
        return self._estimate(bootstrap, eer)

    def _estimate(self, bootstrap: Bootstrap, figure: Callable[[RocCurve | None], float]) -> Estimate:
        curves = RocCurves(self.scores, self.labels)
        return bootstrap.estimate(
            self.people, lambda weights: figure(curves.weighted(trial_weights(weights, *self.persons)))
        )


class RocCurve(NamedTuple):
    """False-positive and true-positive rates [K + 1] at K falling thresholds, from (0, 0) to (1, 1)."""

    false: NDArray[np.float64]
    true: NDArray[np.float64]


class RocCurves:
    """The ROC curves of one set of scores [M] and labels [M] under many weights; the scores are sorted once."""

    def __init__(self, scores: NDArray[np.float64], labels: NDArray[np.bool_]) -> None:
        thresholds, self._threshold = np.unique(-scores, return_inverse=True)
        self._count = len(thresholds)
        self._labels = labels

    def weighted(self, weights: Weights) -> RocCurve | None:
        """The curve of pairs with weights [M]; None where pairs of one label have no weight."""
        true = self._cumulated(weights * self._labels)
        false = self._cumulated(weights * ~self._labels)
        return RocCurve(false / false[-1], true / true[-1]) if true[-1] > 0 and false[-1] > 0 else None

    def _cumulated(self, weights: Weights) -> NDArray[np.float64]:
        return np.append(0.0, np.cumsum(np.bincount(self._threshold, weights, self._count)))


def auc(curve: RocCurve | None) -> float:
    """The area under a curve; nan without one."""
    return float(np.trapezoid(curve.true, curve.false)) if curve else float("nan")


def eer(curve: RocCurve | None) -> float:
    """The equal error rate of a curve; nan without one.

    It is where the curve, with straight lines between its points, meets the line of equal rates. The published code
    takes the nearest point of the curve instead; the two differ by less than one step of the curve.
    """
    if not curve:
        return float("nan")
    gap = 1 - curve.true - curve.false  # falls from 1 to -1 along the curve
    after = int(np.argmax(gap <= 0))
    share = gap[after - 1] / (gap[after - 1] - gap[after])
    return float(curve.false[after - 1] + share * (curve.false[after] - curve.false[after - 1]))


def true_rates(curve: RocCurve) -> tuple[float, ...]:
    """The true-positive rate at the false-positive rates 0, 0.01 … 1, the highest one where the curve is vertical."""
    highest = np.append(np.diff(curve.false) > 0, True)
    rates = np.linspace(0, 1, _ROC_POINTS)
    return tuple(float(rate) for rate in np.interp(rates, curve.false[highest], curve.true[highest]))


def evaluate_verification(
    pairs: Verification, features: Features, bootstrap: Bootstrap, *, derived: bool = False
) -> VerificationResult:
    """AUC and EER of a list."""
    voices, faces = features.voices.find(pairs.voices), features.faces.find(pairs.faces)
    present = (voices >= 0) & (faces >= 0)
    keys = [*(("voice", key) for key in pairs.voices), *(("face", key) for key in pairs.faces)]
    skipped = features.check(pairs.source, present, keys)
    scores = cosines(features.voices.vectors[voices[present]], features.faces.vectors[faces[present]])
    labels = np.array(pairs.labels)[present]
    kept = np.flatnonzero(present)
    people, persons = number_people(*([names[m] for m in kept] for names in (pairs.voice_persons, pairs.face_persons)))
    known = Pairs(scores, labels, people, persons)
    curve = RocCurves(scores, labels).weighted(np.ones(len(scores)))
    if not curve:
        raise EvaluationError(
            f"{pairs.source} must have pairs of one person and of two; those left are all of one kind"
        )
    return VerificationResult(
        list=pairs.source,
        group=pairs.group,
        derived=derived,
        pairs=len(scores),
        same=int(labels.sum()),
        skipped=skipped,
        people=people,
        auc=known.auc(bootstrap),
        eer=known.eer(bootstrap),
        roc=true_rates(curve),
    )


def select_group(pairs: Verification, group: str, people: People) -> Verification | None:
    """All pairs of one person, and those of two people who share the attributes of `group`; None without these."""
    same = people.same(group)
    kept = [
        m
        for m, (one, other) in enumerate(zip(pairs.voice_persons, pairs.face_persons, strict=True))
        if pairs.labels[m] or same(one, other)
    ]
    if all(pairs.labels[m] for m in kept):
        return None
    return replace(
        pairs,
        group=group,
        voices=[pairs.voices[m] for m in kept],
        faces=[pairs.faces[m] for m in kept],
        voice_persons=[pairs.voice_persons[m] for m in kept],
        face_persons=[pairs.face_persons[m] for m in kept],
        labels=[pairs.labels[m] for m in kept],
    )


def all_verification(
    pairs: Verification, features: Features, bootstrap: Bootstrap, people: People | None
) -> list[VerificationResult]:
    """A list's result; with `people`, also those of the groups within an unrestricted list."""
    results = [evaluate_verification(pairs, features, bootstrap)]
    selections = (select_group(pairs, group, people) for group in SAME) if people and pairs.group == "U" else ()
    return results + [evaluate_verification(each, features, bootstrap, derived=True) for each in selections if each]
