"""Verification: are a recording and an image of one person? AUC and equal error rate of their cosine."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score, roc_curve

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
        return bootstrap.estimate(self.people, lambda weights: auc(self.labels, self.scores, self._of_pairs(weights)))

    def eer(self, bootstrap: Bootstrap) -> Estimate:
        """The equal error rate."""
        return bootstrap.estimate(self.people, lambda weights: eer(self.labels, self.scores, self._of_pairs(weights)))

    def _of_pairs(self, weights: Weights) -> Weights:
        return trial_weights(weights, *self.persons)


def auc(labels: NDArray[np.bool_], scores: NDArray[np.float64], weights: Weights) -> float:
    """The weighted area under the ROC curve; nan without a pair of either label."""
    return float(roc_auc_score(labels, scores, sample_weight=weights)) if _has_both(labels, weights) else float("nan")


def eer(labels: NDArray[np.bool_], scores: NDArray[np.float64], weights: Weights) -> float:
    """The weighted equal error rate; nan without a pair of either label.

    It is where the ROC curve, with straight lines between its points, meets the line of equal rates. The published code
    takes the nearest point of the curve instead; the two differ by less than one step of the curve.
    """
    if not _has_both(labels, weights):
        return float("nan")
    false, true, _ = roc_curve(labels, scores, sample_weight=weights, drop_intermediate=False)
    gap = 1 - true - false  # falls from 1 to -1 along the curve
    after = int(np.argmax(gap <= 0))
    share = gap[after - 1] / (gap[after - 1] - gap[after])
    return float(false[after - 1] + share * (false[after] - false[after - 1]))


def roc(labels: NDArray[np.bool_], scores: NDArray[np.float64]) -> tuple[float, ...]:
    """The true-positive rate at the false-positive rates 0, 0.01 … 1."""
    false, true, _ = roc_curve(labels, scores)
    # The curve is vertical at some rates; the highest point there belongs to the rate.
    rates = np.linspace(0, 1, _ROC_POINTS)
    return tuple(float(rate) for rate in np.interp(rates, *_highest(false, true)))


def _highest(false: NDArray[np.float64], true: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    last = np.append(np.diff(false) > 0, True)
    return false[last], true[last]


def _has_both(labels: NDArray[np.bool_], weights: Weights) -> bool:
    counted = labels[weights > 0]
    return bool(counted.any() and not counted.all())


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
        roc=roc(labels, scores),
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
