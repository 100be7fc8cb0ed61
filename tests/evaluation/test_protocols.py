"""Every protocol and group gives what plain loops give."""

from itertools import product

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

from tests.evaluation.conftest import NAMES, PER_PERSON, VIDEO, alike, cosine, embeddings, face_path, voice_path
from voicestyle.evaluation.embeddings import Embeddings
from voicestyle.evaluation.errors import EvaluationError
from voicestyle.evaluation.intervals import Bootstrap
from voicestyle.evaluation.lists import RETRIEVAL_HEADERS, VERIFICATION_HEADER, read_list
from voicestyle.evaluation.matching import extend
from voicestyle.evaluation.people import read_people
from voicestyle.evaluation.recognition import evaluate_lists
from voicestyle.evaluation.retrieval import chance
from voicestyle.evaluation.trials import Features
from voicestyle.evaluation.verification import RocCurves, auc, eer, true_rates

GROUPS = ("U", "G", "N", "GN")
FEW = Bootstrap(resamples=100)
PATHS = {"v2f": (voice_path, face_path), "f2v": (face_path, voice_path)}


def trials_of(direction, group, others=1):
    """All trials of a direction whose candidates are of the probe's group: [probe, true, other …]."""
    probe, candidate = PATHS[direction]
    return [
        [probe(name, i), candidate(name, (i + 1) % PER_PERSON), *(candidate(other, i) for other in rest[:others])]
        for name, i in product(NAMES, range(PER_PERSON))
        for shift in range(len(NAMES))
        if len(rest := [o for o in (NAMES[shift:] + NAMES[:shift]) if o != name and alike(group, name, o)]) >= others
    ]


def write_matching(path, trials):
    path.write_text("".join(" ".join(trial) + "\n" for trial in trials))
    return read_list(path)


def pairs_of(group):
    """(voice path, face path, same person) of all pairs of a group."""
    return [
        (voice_path(one, i), face_path(other, j), one == other)
        for one, other, i, j in product(NAMES, NAMES, range(PER_PERSON), range(2))
        if one == other or alike(group, one, other)
    ]


def write_verification(path, pairs):
    """A verification list in its published short form of paths."""
    lines = [VERIFICATION_HEADER]
    for number, (voice, face, same) in enumerate(pairs, 1):
        name = face.split("/")[0]
        speaker = int(voice[2:7]) - 10000
        owner = NAMES.index(name) + 1
        short_voice = f"{NAMES[speaker - 1]}/{VIDEO}_00{voice.split('/')[-1]}"
        lines.append(f"{number},{speaker},{owner},{int(same)},{short_voice},{name}/{VIDEO}/{face.split('/')[-1]}")
    path.write_text("\n".join(lines) + "\n")
    return read_list(path)


def loop_accuracy(vectors, trials):
    results = []
    for probe, *candidates in trials:
        scores = [cosine(vectors[probe], vectors[candidate]) for candidate in candidates]
        results.append(scores[0] > max(scores[1:]))
    return sum(results) / len(results)


def loop_auc(scores, labels):
    """The share of (pair of one person, pair of two) in which the first has the larger score; a tie is one half."""
    same = [score for score, label in zip(scores, labels, strict=True) if label]
    other = [score for score, label in zip(scores, labels, strict=True) if not label]
    return sum((s > o) + 0.5 * (s == o) for s in same for o in other) / (len(same) * len(other))


def loop_eer(scores, labels):
    """Walk along the thresholds from above; between two points of the curve, both rates change linearly."""
    same, other = sum(labels), len(labels) - sum(labels)
    before = (0.0, 1.0)  # false-positive and false-negative rate
    for threshold in sorted(set(scores), reverse=True):
        accepted = [label for score, label in zip(scores, labels, strict=True) if score >= threshold]
        false, missed = accepted.count(False) / other, 1 - accepted.count(True) / same
        if false >= missed:
            gap, next_gap = before[1] - before[0], missed - false
            return before[0] + (false - before[0]) * gap / (gap - next_gap)
        before = (false, missed)
    raise AssertionError


def loop_average_precision(scores, relevant):
    """Sum over distinct scores, from above, of (rise of recall) · precision."""
    total, found, seen, result = sum(relevant), 0, 0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        at = [r for s, r in zip(scores, relevant, strict=True) if s == threshold]
        found, seen = found + sum(at), seen + len(at)
        result += sum(at) / total * found / seen
    return result


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("direction", PATHS)
def test_matching_of_two(tmp_path, vectors, features, direction, group):
    trials = trials_of(direction, group)
    read = write_matching(tmp_path / f"matching_{direction}_{group}.csv", trials)
    (result,) = evaluate_lists([read], features, FEW).matching
    expected = loop_accuracy(vectors, trials)
    assert result.accuracy.value == pytest.approx(expected)
    assert 0.5 < expected < 1
    assert result.accuracy.low <= expected <= result.accuracy.high
    assert (result.group, result.candidates, result.chance, result.skipped) == (group, 2, 0.5, 0)
    assert result.direction == {"v2f": "voice to face", "f2v": "face to voice"}[direction]
    assert result.trials == len(trials)
    assert result.people == len({name for name in NAMES if any(name in " ".join(trial) for trial in trials)})


@pytest.mark.parametrize("count", [3, 4, 5])
def test_matching_of_many(tmp_path, vectors, features, count):
    trials = trials_of("v2f", "U", others=count - 1)
    read = write_matching(tmp_path / f"matching_1_{count}.csv", trials)
    (result,) = evaluate_lists([read], features, FEW).matching
    assert result.accuracy.value == pytest.approx(loop_accuracy(vectors, trials))
    assert (result.group, result.candidates, result.chance) == ("U", count, pytest.approx(1 / count))


@pytest.mark.parametrize("direction", PATHS)
def test_groups_within_an_unrestricted_list_are_those_of_lists_of_the_group(
    tmp_path, vectors, features, people_file, direction
):
    trials = trials_of(direction, "U")
    read = write_matching(tmp_path / f"matching_{direction}_U.csv", trials)
    results = evaluate_lists([read], features, FEW, people=read_people(people_file)).matching
    assert [(result.group, result.derived) for result in results] == [(g, g != "U") for g in GROUPS]
    owners = {
        path: name for name in NAMES for i in range(PER_PERSON) for path in (voice_path(name, i), face_path(name, i))
    }
    for result in results:
        kept = [trial for trial in trials if alike(result.group, owners[trial[0]], owners[trial[2]])]
        assert result.trials == len(kept)
        assert result.accuracy.value == pytest.approx(loop_accuracy(vectors, kept))


def test_candidates_are_drawn_for_1_to_n(tmp_path, vectors, features):
    trials = trials_of("v2f", "U")
    read = write_matching(tmp_path / "matching_v2f_U.csv", trials)
    results = evaluate_lists([read], features, FEW, one_to_n=5).matching
    assert [(result.candidates, result.drawn) for result in results] == [(2, False), (3, True), (4, True), (5, True)]
    extended = extend(read, 5, FEW.seed)
    for result in results:
        of_count = [
            [f"{probe}.wav", *(f"{key}.jpg" for key in keys[: result.candidates])]
            for probe, keys in zip(extended.probes, extended.candidates, strict=True)
        ]
        assert result.accuracy.value == pytest.approx(loop_accuracy(vectors, of_count))
    for trial, keys in zip(trials, extended.candidates, strict=True):
        assert [f"{key}.jpg" for key in keys[:2]] == trial[1:]
        assert len({key.split("/")[0] for key in keys}) == 5  # five different people, the probe's only as the true one
    shorter = extend(read, 4, FEW.seed)
    assert [keys[:4] for keys in extended.candidates] == shorter.candidates
    assert extend(read, 5, 1).candidates != extended.candidates
    with pytest.raises(EvaluationError, match="candidates of at least 7 people for 1:7 matching, received 6"):
        extend(read, 7, 0)


@pytest.mark.parametrize("group", GROUPS)
def test_verification(tmp_path, vectors, features, group):
    pairs = pairs_of(group)
    name = {"U": "random"}.get(group, group)
    read = write_verification(tmp_path / f"veriflist_test_{name}_unseenunheard.txt", pairs)
    (result,) = evaluate_lists([read], features, FEW).verification
    scores = [cosine(vectors[voice], vectors[face]) for voice, face, _ in pairs]
    labels = [same for _, _, same in pairs]
    assert result.auc.value == pytest.approx(loop_auc(scores, labels))
    assert result.eer.value == pytest.approx(loop_eer(scores, labels))
    assert 0 < result.eer.value < 0.5 < result.auc.value < 1
    assert result.auc.low <= result.auc.value <= result.auc.high
    assert (result.group, result.pairs, result.same, result.people) == (group, len(pairs), sum(labels), 6)
    assert (result.roc[0] < 1, result.roc[-1], len(result.roc)) == (True, 1, 101)
    assert sum(result.roc) / 101 == pytest.approx(result.auc.value, abs=0.03)


def test_groups_within_an_unrestricted_verification_list(tmp_path, vectors, features, people_file):
    read = write_verification(tmp_path / "veriflist_test_random_seenheard.txt", pairs_of("U"))
    results = evaluate_lists([read], features, FEW, people=read_people(people_file)).verification
    assert [(result.group, result.derived) for result in results] == [(g, g != "U") for g in GROUPS]
    for result in results:
        pairs = pairs_of(result.group)
        scores = [cosine(vectors[voice], vectors[face]) for voice, face, _ in pairs]
        assert result.pairs == len(pairs)
        assert result.auc.value == pytest.approx(loop_auc(scores, [same for _, _, same in pairs]))


def write_retrieval(folder, voices, faces):
    lists = []
    for header, paths in zip(RETRIEVAL_HEADERS, (voices, faces), strict=True):
        path = folder / f"{header[-3:]}_20k.csv"
        path.write_text("\n".join([header, *(f"{person}\t{key}" for person, key in paths)]) + "\n")
        lists.append(read_list(path))
    return lists


def test_retrieval(tmp_path, vectors, features):
    voices = [(name, voice_path(name, i)) for name in NAMES for i in range(PER_PERSON)]
    faces = [(name, face_path(name, i)) for name in NAMES for i in range(2)]
    results = evaluate_lists(write_retrieval(tmp_path, voices, faces), features, FEW).retrieval
    for result, queries, gallery in zip(results, (voices, faces), (faces, voices), strict=True):
        precisions = [
            loop_average_precision(
                [cosine(vectors[query], vectors[key]) for _, key in gallery], [owner == person for owner, _ in gallery]
            )
            for person, query in queries
        ]
        assert result.mean_average_precision.value == pytest.approx(np.mean(precisions))
        assert (result.queries, result.gallery, result.people, result.skipped) == (len(queries), len(gallery), 6, 0)
        assert result.chance < result.mean_average_precision.value
    assert [result.direction for result in results] == ["voice to face", "face to voice"]


def test_queries_without_their_person_in_the_gallery_are_left_out(tmp_path, features):
    voices = [(name, voice_path(name, 0)) for name in NAMES]
    faces = [(name, face_path(name, 0)) for name in NAMES[:4]]
    to_faces, to_voices = evaluate_lists(write_retrieval(tmp_path, voices, faces), features, FEW).retrieval
    assert (to_faces.queries, to_faces.skipped) == (4, 2)
    assert (to_voices.queries, to_voices.skipped) == (4, 0)
    lists = write_retrieval(tmp_path, voices[4:], faces)
    with pytest.raises(EvaluationError, match="must have people in common"):
        evaluate_lists(lists, features, FEW)


@pytest.mark.parametrize(("relevant", "items"), [(1, 1), (1, 7), (3, 7), (7, 7)])
def test_chance_is_the_average_precision_of_random_orders(relevant, items):
    source = np.random.default_rng(0)
    flags = np.arange(items) < relevant
    orders = [loop_average_precision(list(range(items)), source.permutation(flags).tolist()) for _ in range(4000)]
    assert chance(relevant, items) == pytest.approx(np.mean(orders), abs=0.01)


def test_ties_count_as_a_random_choice(tmp_path, features):
    """Embeddings that are all equal know nothing, in every protocol."""
    equal = [
        Embeddings(each.source, each.rows, np.ones_like(each.vectors) / np.sqrt(each.dim).astype(np.float32), {})
        for each in (features.voices, features.faces)
    ]
    voices = [(name, voice_path(name, 0)) for name in NAMES]
    faces = [(name, face_path(name, 0)) for name in NAMES]
    lists = [
        write_matching(tmp_path / "matching_1_4.csv", trials_of("v2f", "U", others=3)),
        write_verification(tmp_path / "veriflist_test_random_seenheard.txt", pairs_of("U")),
        *write_retrieval(tmp_path, voices, faces),
    ]
    section = evaluate_lists(lists, Features(*equal), FEW)
    assert section.matching[0].accuracy.value == 0.25
    assert (section.verification[0].auc.value, section.verification[0].eer.value) == (0.5, 0.5)
    assert section.retrieval[0].mean_average_precision.value == pytest.approx(1 / 6)


def curve_of(labels, scores, weights=None):
    labels, scores = np.array(labels), np.array(scores, np.float64)
    return RocCurves(scores, labels).weighted(
        np.ones(len(scores)) if weights is None else np.array(weights, np.float64)
    )


def test_eer_and_auc_of_partly_tied_scores():
    scores = [0.9, 0.5, 0.5, 0.5, 0.2, 0.1]
    labels = [True, True, False, True, False, False]
    curve = curve_of(labels, scores)
    assert auc(curve) == pytest.approx(loop_auc(scores, labels)) == pytest.approx(8 / 9)
    # From (0, 1/3) to (1/3, 1) with all ties at once; the line of equal rates meets it at 2/9.
    assert eer(curve) == pytest.approx(loop_eer(scores, labels)) == pytest.approx(2 / 9)
    assert true_rates(curve)[0] == pytest.approx(1 / 3)
    assert true_rates(curve)[34:] == (1,) * 67


def test_separated_and_reversed_scores():
    labels, scores = [True, True, False, False], [4, 3, 2, 1]
    right, wrong = curve_of(labels, scores), curve_of([not label for label in labels], scores)
    assert (auc(right), eer(right), auc(wrong), eer(wrong)) == (1, 0, 0, 1)
    undefined = curve_of(labels, scores, [1, 1, 0, 0])
    assert undefined is None
    assert np.isnan([auc(undefined), eer(undefined)]).all()


def test_weighted_curves_are_those_of_scikit_learn_and_of_repetitions():
    source = np.random.default_rng(2)
    labels, scores = source.random(60) < 0.5, source.integers(0, 9, 60) / 8
    times = source.integers(0, 3, 60)
    curve, repeated = curve_of(labels, scores, times), curve_of(np.repeat(labels, times), np.repeat(scores, times))
    assert auc(curve) == pytest.approx(roc_auc_score(labels, scores, sample_weight=times))
    assert auc(curve) == pytest.approx(auc(repeated))
    assert eer(curve) == pytest.approx(eer(repeated))
    false, true, _ = roc_curve(labels, scores, sample_weight=times, drop_intermediate=False)
    assert curve.false == pytest.approx(false)
    assert curve.true == pytest.approx(true)


@pytest.fixture
def incomplete(vectors):
    kept = {path: vector for path, vector in vectors.items() if path != face_path("Ann", 1)}
    return Features(embeddings(kept, ".wav"), embeddings(kept, ".jpg"))


def test_a_missing_embedding_is_an_error_or_left_out(tmp_path, vectors, incomplete):
    trials = trials_of("v2f", "U")
    lists = [
        write_matching(tmp_path / "matching_v2f_U.csv", trials),
        write_verification(tmp_path / "veriflist_test_random_seenheard.txt", pairs_of("U")),
        *write_retrieval(
            tmp_path, [(n, voice_path(n, 0)) for n in NAMES], [(n, face_path(n, i)) for n in NAMES for i in (0, 1)]
        ),
    ]
    for each in (lists[:1], lists[1:2], lists[2:]):
        with pytest.raises(
            EvaluationError, match="each line must have its embeddings, .* 'Ann/1.6/w9H-ZMvdE_0/0000001'"
        ):
            evaluate_lists(each, incomplete, FEW)
    section = evaluate_lists(lists, Features(incomplete.voices, incomplete.faces, skip_missing=True), FEW)
    kept = [trial for trial in trials if face_path("Ann", 1) not in trial]
    assert section.matching[0].skipped == len(trials) - len(kept) > 0
    assert section.matching[0].accuracy.value == pytest.approx(loop_accuracy(vectors, kept))
    assert section.verification[0].skipped == 18  # the image is in one pair with each recording
    assert [result.skipped for result in section.retrieval] == [1, 1]


def test_nothing_left_is_an_error_even_when_missing_ones_are_skipped(tmp_path, features, vectors):
    read = write_matching(tmp_path / "matching_v2f_U.csv", trials_of("v2f", "U"))
    faces = embeddings({path: v for path, v in vectors.items() if path.startswith("Ann/")}, ".jpg")
    with pytest.raises(EvaluationError, match="of 108 have not"):
        evaluate_lists([read], Features(features.voices, faces, skip_missing=True), FEW)


def test_features_of_different_sizes_are_an_error(features):
    other = Embeddings.of("other", ["a"], np.ones((1, 4)))
    with pytest.raises(EvaluationError, match=r"same number of components, received 5 \(.wav\) and 4 \(other\)"):
        Features(features.voices, other)


def test_retrieval_needs_both_lists(tmp_path, features):
    voices, faces = write_retrieval(tmp_path, [("a", "a/b.wav")], [("a", "a/b.jpg")])
    for lists, received in (([voices], "received 1 and 0"), ([faces, faces, voices], "received 1 and 2")):
        with pytest.raises(EvaluationError, match=f"one list of recordings and one of images, {received}"):
            evaluate_lists(lists, features, FEW)
    with pytest.raises(EvaluationError, match="at least one list"):
        evaluate_lists([], features, FEW)
