"""1:N matching: which of N candidates of the other kind is the person of the probe?"""

from dataclasses import replace
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from voicestyle.evaluation.errors import EvaluationError
from voicestyle.evaluation.intervals import Bootstrap, number_people
from voicestyle.evaluation.lists import Matching
from voicestyle.evaluation.people import SAME, People
from voicestyle.evaluation.report import DIRECTION, MatchingResult
from voicestyle.evaluation.trials import Features, cosines


def evaluate_matching(
    trials: Matching, features: Features, bootstrap: Bootstrap, *, derived: bool = False, drawn: bool = False
) -> MatchingResult:
    """The accuracy of a list.

    A trial is right if the true candidate has the largest cosine to the probe; where it shares the largest with others,
    it counts as 1 / (number of candidates that share it), the expected result of a random choice.
    """
    probe_kind, other_kind = trials.probe_kind, "face" if trials.probe_kind == "voice" else "voice"
    probes, candidates = features.of(probe_kind), features.of(other_kind)
    count = len(trials.candidates[0])
    probe_rows = probes.find(trials.probes)
    rows = candidates.find(chain.from_iterable(trials.candidates)).reshape(-1, count)
    present = (probe_rows >= 0) & (rows >= 0).all(axis=1)
    keys = [
        *((probe_kind, key) for key in trials.probes),
        *((other_kind, key) for key in chain.from_iterable(trials.candidates)),
    ]
    skipped = features.check(trials.source, present, keys)
    probe_rows, rows = probe_rows[present], rows[present]
    scores = np.stack(
        [cosines(probes.vectors[probe_rows], candidates.vectors[rows[:, i]]) for i in range(count)], axis=1
    )
    hardest = scores[:, 1:].argmax(axis=1) + 1
    kept = np.flatnonzero(present)
    # Whether a trial is right is decided between the true candidate and the most similar other one.
    rivals = [trials.candidate_persons[m][i] for m, i in zip(kept, hardest, strict=True)]
    people, persons = number_people([trials.persons[m] for m in kept], rivals)
    return MatchingResult(
        list=trials.source,
        direction=DIRECTION[probe_kind],
        group=trials.group,
        derived=derived,
        candidates=count,
        drawn=drawn,
        trials=len(scores),
        skipped=skipped,
        people=len({trials.persons[m] for m in kept} | {name for m in kept for name in trials.candidate_persons[m]}),
        accuracy=bootstrap.share(people, right(scores), *persons),
        chance=1 / count,
    )


def right(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """The result [M] of trials with scores [M, N], those of the true candidates first: 1, 0, or a share for a tie."""
    best = scores == scores.max(axis=1, keepdims=True)
    return np.where(best[:, 0], 1 / best.sum(axis=1), 0.0)


def select_group(trials: Matching, group: str, people: People) -> Matching | None:
    """The trials whose candidates all share the attributes of `group` with the probe's person; None without any."""
    same = people.same(group)
    kept = [
        m
        for m, (person, others) in enumerate(zip(trials.persons, trials.candidate_persons, strict=True))
        if all(same(person, other) for other in others)
    ]
    if not kept:
        return None
    return replace(
        trials,
        group=group,
        probes=[trials.probes[m] for m in kept],
        candidates=[trials.candidates[m] for m in kept],
        persons=[trials.persons[m] for m in kept],
        candidate_persons=[trials.candidate_persons[m] for m in kept],
    )


def extend(trials: Matching, candidates: int, seed: int) -> Matching:
    """Trials with `candidates` candidates, those of the list first.

    The lists of 1:N matching are not published. Here, candidates of other people are drawn from those of the list, one
    person at most once in a trial. The first n candidates do not depend on how many follow.

    Raises EvaluationError if the list has fewer people.
    """
    keys_of: dict[str, dict[str, None]] = {}
    for persons, keys in zip(trials.candidate_persons, trials.candidates, strict=True):
        for person, key in zip(persons, keys, strict=True):
            keys_of.setdefault(person, {})[key] = None
    pool = {person: sorted(keys_of[person]) for person in sorted(keys_of)}
    names = list(pool)
    if len(names) < candidates:
        raise EvaluationError(
            f"{trials.source} must have candidates of at least {candidates} people for 1:{candidates} matching, "
            f"received {len(names)}"
        )
    source = np.random.Generator(np.random.Philox(seed))
    extended: list[list[str]] = []
    extended_persons: list[list[str]] = []
    for persons, keys in zip(trials.candidate_persons, trials.candidates, strict=True):
        order, draws = source.permutation(len(names)), source.random(len(names))
        others = [names[i] for i in order if names[i] not in persons][: candidates - len(keys)]
        drawn = [pool[name][int(draw * len(pool[name]))] for name, draw in zip(others, draws, strict=False)]
        extended.append([*keys, *drawn])
        extended_persons.append([*persons, *others])
    return replace(trials, candidates=extended, candidate_persons=extended_persons)


def first_candidates(trials: Matching, count: int) -> Matching:
    """The same trials with their first `count` candidates."""
    return replace(
        trials,
        candidates=[keys[:count] for keys in trials.candidates],
        candidate_persons=[names[:count] for names in trials.candidate_persons],
    )


def all_matching(
    trials: Matching, features: Features, bootstrap: Bootstrap, people: People | None, one_to_n: int
) -> list[MatchingResult]:
    """A list's result; with `people`, those of the groups within an unrestricted list; with `one_to_n`, those of 1:3 to
    1:`one_to_n` made from an unrestricted list of 1:2."""
    results = [evaluate_matching(trials, features, bootstrap)]
    if trials.group != "U":
        return results
    selections = (select_group(trials, group, people) for group in SAME) if people else ()
    results += [evaluate_matching(each, features, bootstrap, derived=True) for each in selections if each]
    if one_to_n > 2 and len(trials.candidates[0]) == 2:
        longest = extend(trials, one_to_n, bootstrap.seed)
        results += [
            evaluate_matching(first_candidates(longest, count), features, bootstrap, drawn=True)
            for count in range(3, one_to_n + 1)
        ]
    return results
