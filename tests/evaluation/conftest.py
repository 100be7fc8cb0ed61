"""Lists and embeddings of a few people, with results that plain loops can compute."""

import numpy as np
import pytest

from voicestyle.evaluation.embeddings import Embeddings
from voicestyle.evaluation.trials import Features

# name, gender, nationality; the VoxCeleb1 id is id10001 and so on.
PEOPLE = [
    ("Ann", "f", "India"),
    ("Bea", "f", "India"),
    ("Cleo", "f", "Spain"),
    ("Dan", "m", "India"),
    ("Eli", "m", "Spain"),
    ("Finn", "m", "Spain"),
]
NAMES = [name for name, _, _ in PEOPLE]
IDS = {name: f"id{10001 + number}" for number, name in enumerate(NAMES)}
GENDERS = {name: gender for name, gender, _ in PEOPLE}
NATIONS = {name: nation for name, _, nation in PEOPLE}
VIDEO = "w9H-ZMvdE_0"  # eleven characters, as on the platform; an underscore is one of them
PER_PERSON = 3


def voice_path(name, number):
    return f"{IDS[name]}/{VIDEO}/{number:05}.wav"


def face_path(name, number):
    return f"{name}/1.6/{VIDEO}/{number:07}.jpg"


def without_suffix(path):
    return path.rsplit(".", 1)[0]


@pytest.fixture
def vectors():
    """The vector of each path: voices and faces of a person are somewhat alike."""
    source = np.random.default_rng(4)
    found = {}
    for name in NAMES:
        centre = source.standard_normal(5)
        for number in range(PER_PERSON):
            for path in (voice_path(name, number), face_path(name, number)):
                found[path] = centre + 1.3 * source.standard_normal(5)
    return found


def embeddings(vectors, suffix):
    paths = [path for path in vectors if path.endswith(suffix)]
    return Embeddings.of(suffix, [without_suffix(path) for path in paths], np.array([vectors[path] for path in paths]))


@pytest.fixture
def features(vectors):
    return Features(embeddings(vectors, ".wav"), embeddings(vectors, ".jpg"))


@pytest.fixture
def people_file(tmp_path):
    rows = [f"{IDS[name]}\t{name}\t{gender}\t{nation}\tdev" for name, gender, nation in PEOPLE]
    path = tmp_path / "vox1_meta.csv"
    path.write_text("\n".join(["VoxCeleb1 ID\tVGGFace1 ID\tGender\tNationality\tSet", *rows]) + "\n")
    return path


def cosine(one, other):
    """Cosine by plain arithmetic."""
    dot = sum(a * b for a, b in zip(one, other, strict=True))
    return dot / (sum(a * a for a in one) ** 0.5 * sum(b * b for b in other) ** 0.5)


def alike(group, one, other):
    """Whether two people are of one group: U, G, N or GN."""
    return ("G" not in group or GENDERS[one] == GENDERS[other]) and ("N" not in group or NATIONS[one] == NATIONS[other])
