"""Speaker consistency by plain loops."""

from itertools import combinations

import numpy as np
import pytest
import torch

from tests.evaluation.test_protocols import loop_auc
from voicestyle.evaluation.consistency import FacesOfSpeakers, between_speakers, mean_cosine, measure_consistency
from voicestyle.evaluation.intervals import Bootstrap

FEW = Bootstrap(100)
SPEAKERS = ["a", "a", "b", "b", "c", "c", "d"]  # d has one face
SEXES = ["F", "F", "F", "F", "M", "M", "M"]


@pytest.fixture
def vectors():
    source = np.random.default_rng(5)
    centres = {speaker: source.standard_normal(6) for speaker in "abcd"}
    found = np.array([centres[speaker] + source.standard_normal(6) for speaker in SPEAKERS])
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def loop_nearest(vectors, within_sex):
    """(share of faces whose nearest other face is the same speaker's, chance)"""
    hits, chances = [], []
    for i, speaker in enumerate(SPEAKERS):
        others = [j for j in range(len(SPEAKERS)) if j != i and (not within_sex or SEXES[i] == SEXES[j])]
        if SPEAKERS.count(speaker) == 2:
            nearest = max(others, key=lambda j: float(vectors[i] @ vectors[j]))
            hits.append(SPEAKERS[nearest] == speaker)
            chances.append(sum(SPEAKERS[j] == speaker for j in others) / len(others))
    return np.mean(hits), np.mean(chances)


def test_consistency_is_that_of_plain_loops(vectors):
    found = measure_consistency(FacesOfSpeakers(vectors, SPEAKERS, SEXES), FEW, halves=False)
    pairs = list(combinations(range(7), 2))
    cosines = {pair: float(vectors[pair[0]] @ vectors[pair[1]]) for pair in pairs}
    same = [pair for pair in pairs if SPEAKERS[pair[0]] == SPEAKERS[pair[1]]]
    other = [pair for pair in pairs if pair not in same]
    of_one_sex = [pair for pair in pairs if SEXES[pair[0]] == SEXES[pair[1]]]
    assert found.auc.value == pytest.approx(loop_auc([cosines[pair] for pair in pairs], [p in same for p in pairs]))
    assert found.auc_within_sex.value == pytest.approx(
        loop_auc([cosines[pair] for pair in of_one_sex], [pair in same for pair in of_one_sex])
    )
    assert found.same_speaker.value == pytest.approx(np.mean([cosines[pair] for pair in same]))
    assert found.between_speakers.value == pytest.approx(np.mean([cosines[pair] for pair in other]))
    assert found.between_speakers_of_one_sex.value == pytest.approx(
        np.mean([cosines[pair] for pair in other if pair in of_one_sex])
    )
    assert (found.nearest.value, found.nearest_chance) == pytest.approx(loop_nearest(vectors, within_sex=False))
    assert (found.nearest_within_sex.value, found.nearest_chance_within_sex) == pytest.approx(
        loop_nearest(vectors, within_sex=True)
    )
    assert found.nearest_chance == pytest.approx(1 / 6)
    assert found.speakers == 3
    assert (sum(found.same_counts), sum(found.different_counts)) == (3, 18)
    low = int((min(cosines[pair] for pair in same) + 1) * 50)
    assert next(number for number, count in enumerate(found.same_counts) if count) == low


def test_equal_faces_are_nearest_by_chance():
    faces = FacesOfSpeakers(np.tile([1.0, 0.0], (6, 1)), ["a", "a", "b", "b", "c", "c"], ["F"] * 6)
    found = measure_consistency(faces, FEW, halves=False)
    assert found.nearest.value == pytest.approx(found.nearest_chance) == pytest.approx(1 / 5)
    assert found.auc.value == 0.5


def test_one_face_of_each_speaker_has_no_consistency_but_diversity(vectors):
    faces = FacesOfSpeakers(vectors[[0, 2, 4]], ["a", "b", "c"], ["F", "F", "M"])
    assert measure_consistency(faces, FEW, halves=False) is None
    expected = np.mean([vectors[i] @ vectors[j] for i, j in ((0, 2), (0, 4), (2, 4))])
    assert between_speakers(faces, FEW).value == pytest.approx(expected)
    assert mean_cosine(vectors[[0, 2, 4]], [""] * 3) == pytest.approx(expected)
    assert mean_cosine(vectors[[0, 2, 4]], ["x", "x", "y"]) == pytest.approx(vectors[0] @ vectors[2])
    assert mean_cosine(vectors[:2], ["x", "y"]) is None


def test_one_speaker_of_each_sex_has_no_figures_within_a_sex(vectors):
    faces = FacesOfSpeakers(vectors[[0, 1, 4, 5]], ["a", "a", "c", "c"], ["F", "F", "M", "M"])
    found = measure_consistency(faces, FEW, halves=True)
    assert found.halves
    assert (found.auc_within_sex, found.nearest_within_sex, found.between_speakers_of_one_sex) == (None, None, None)


def test_the_input_of_a_recogniser():
    from tests.evaluation.test_generation import png
    from voicestyle.evaluation.pixels import to_input

    pixels = np.zeros((256, 256, 3))
    pixels[:, :, 0], pixels[0] = 255, 51
    tensor = to_input(png(pixels))
    assert tensor.dtype == torch.float32
    assert tensor[:, 5, 5].tolist() == [1, -1, -1]
    assert tensor[:, 0, 7].tolist() == pytest.approx([-0.6, -0.6, -0.6])
    assert to_input(png(np.full((64, 64, 3), 255))).shape == (3, 256, 256)
