"""Do two recordings of one speaker give one person? By a face-recognition network that was in no loss."""

from collections.abc import Sequence
from itertools import combinations
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from voicestyle.evaluation.agreement import SEXES
from voicestyle.evaluation.intervals import Bootstrap, Estimate, number_people
from voicestyle.evaluation.pixels import to_input
from voicestyle.evaluation.report import Consistency
from voicestyle.evaluation.verification import Pairs

BINS = 100  # of the cosines, from -1 to 1


class Recogniser(Protocol):
    """A face-recognition network, as in `voicestyle.face_networks`."""

    name: str

    def embed(self, images: Tensor) -> Tensor:
        """Unit vectors [N, E] of aligned images [N, 3, 256, 256] in [-1, 1]."""
        ...


def embed_faces(recogniser: Recogniser, images: Sequence[bytes]) -> NDArray[np.float64]:
    """The unit vectors [M, E] of image files, each computed alone."""
    with torch.inference_mode():
        return np.concatenate([recogniser.embed(to_input(image)[None]).double().numpy() for image in images])


def mean_cosine(vectors: NDArray[np.float64], groups: Sequence[str]) -> float | None:
    """The mean cosine between two unit vectors [M, E] of one group; None without two of one group."""
    one, other = np.triu_indices(len(vectors), 1)
    alike = np.array(groups)[one] == np.array(groups)[other]
    return float((vectors @ vectors.T)[one[alike], other[alike]].mean()) if alike.any() else None


class FacesOfSpeakers:
    """Faces as unit vectors [M, E], with the speaker and the speaker's sex of each."""

    def __init__(self, vectors: NDArray[np.float64], speakers: Sequence[str], sexes: Sequence[str]) -> None:
        self.people, (self.persons,) = number_people(speakers)
        self._cosines = np.clip(vectors @ vectors.T, -1, 1)  # rounding may go beyond
        self._sexes = np.array(sexes)
        self._pairs = np.array(list(combinations(range(len(speakers)), 2)), np.intp).reshape(-1, 2)

    def pairs(self, *, within_sex: bool) -> Pairs:
        """The cosines of all pairs of faces; the label is whether both are of one speaker."""
        one, other = self._pairs.T
        if within_sex:
            alike = self._sexes[one] == self._sexes[other]
            one, other = one[alike], other[alike]
        persons = [self.persons[one], self.persons[other]]
        return Pairs(self._cosines[one, other], persons[0] == persons[1], self.people, persons)

    def nearest(self, bootstrap: Bootstrap, *, within_sex: bool) -> tuple[Estimate, float] | None:
        """The share of faces whose nearest other face is the same speaker's, and the share for a random other face.

        Faces of speakers with a single face are not counted, but may be the nearest. A tie counts as the expected
        result of a random choice. None if no speaker has two faces, or if all faces are of one speaker.
        """
        values: list[float] = []
        chances: list[float] = []
        counted: list[int] = []
        for i, person in enumerate(self.persons):
            others = np.flatnonzero((self._sexes == self._sexes[i]) | (not within_sex))
            others = others[others != i]
            same = self.persons[others] == person
            if same.any() and not same.all():
                cosines = self._cosines[i, others]
                values.append(float(same[cosines == cosines.max()].mean()))
                chances.append(float(same.mean()))
                counted.append(i)
        if not counted:
            return None
        share = bootstrap.share(self.people, np.array(values), self.persons[counted])
        return share, float(np.mean(chances))


def measure_consistency(faces: FacesOfSpeakers, bootstrap: Bootstrap, *, halves: bool) -> Consistency | None:
    """The figures of faces of at least two speakers, at least one of them with two faces; None for other faces.

    halves: whether a recording was split, for the report.
    """
    pairs, within = faces.pairs(within_sex=False), faces.pairs(within_sex=True)
    nearest = faces.nearest(bootstrap, within_sex=False)
    if nearest is None:
        return None
    nearest_within = faces.nearest(bootstrap, within_sex=True)
    of_one_sex = _has_both(within)
    counts = [np.histogram(pairs.scores[pairs.labels == same], BINS, (-1, 1))[0].tolist() for same in (True, False)]
    return Consistency(
        speakers=len(np.unique(pairs.persons[0][pairs.labels])),
        halves=halves,
        auc=pairs.auc(bootstrap),
        nearest=nearest[0],
        nearest_chance=nearest[1],
        same_speaker=_mean(pairs, True, bootstrap),
        between_speakers=_mean(pairs, False, bootstrap),
        auc_within_sex=within.auc(bootstrap) if of_one_sex else None,
        nearest_within_sex=nearest_within[0] if nearest_within else None,
        nearest_chance_within_sex=nearest_within[1] if nearest_within else None,
        between_speakers_of_one_sex=_mean(within, False, bootstrap) if of_one_sex else None,
        same_counts=tuple(counts[0]),
        different_counts=tuple(counts[1]),
    )


def between_speakers(faces: FacesOfSpeakers, bootstrap: Bootstrap) -> Estimate | None:
    """The mean cosine between faces of different speakers; None for one speaker."""
    pairs = faces.pairs(within_sex=False)
    return None if pairs.labels.all() else _mean(pairs, False, bootstrap)


def between_speakers_by_sex(
    vectors: NDArray[np.float64], speakers: Sequence[str], sexes: Sequence[str], bootstrap: Bootstrap
) -> dict[str, Estimate]:
    """The mean cosine between faces of different speakers of each sex that has two speakers."""
    found: dict[str, Estimate] = {}
    for sex in SEXES:
        rows = [i for i, each in enumerate(sexes) if each == sex]
        faces = FacesOfSpeakers(vectors[rows], [speakers[i] for i in rows], [sex] * len(rows))
        if faces.people > 1 and (estimate := between_speakers(faces, bootstrap)):
            found[sex] = estimate
    return found


def _mean(pairs: Pairs, same: bool, bootstrap: Bootstrap) -> Estimate:
    kept = pairs.labels == same
    return bootstrap.mean(pairs.people, pairs.scores[kept], *(person[kept] for person in pairs.persons))


def _has_both(pairs: Pairs) -> bool:
    return bool(pairs.labels.any() and not pairs.labels.all())
