"""Retrieval: all images in the order of their cosine to a recording, and the other way round."""

import numpy as np
from sklearn.metrics import average_precision_score

from voicestyle.evaluation.errors import EvaluationError
from voicestyle.evaluation.intervals import Bootstrap, number_people
from voicestyle.evaluation.lists import RetrievalItems
from voicestyle.evaluation.report import DIRECTION, RetrievalResult
from voicestyle.evaluation.trials import Features


def evaluate_retrieval(
    queries: RetrievalItems, gallery: RetrievalItems, features: Features, bootstrap: Bootstrap
) -> RetrievalResult:
    """The mean over queries of the average precision; items of the gallery with equal cosine share one rank.

    The interval is over the people of the queries, with the gallery as it is. Queries whose person is not in the
    gallery are left out. Raises EvaluationError if that holds for all of them.
    """
    rows, gallery_rows = features.of(queries.kind).find(queries.keys), features.of(gallery.kind).find(gallery.keys)
    skipped_items = features.check(gallery.source, gallery_rows >= 0, [(gallery.kind, key) for key in gallery.keys])
    skipped = features.check(queries.source, rows >= 0, [(queries.kind, key) for key in queries.keys])
    gallery_persons = np.array(gallery.persons)[gallery_rows >= 0]
    vectors = features.of(gallery.kind).vectors[gallery_rows[gallery_rows >= 0]].astype(np.float64)
    counts = dict(zip(*np.unique(gallery_persons, return_counts=True), strict=True))
    used = [m for m in np.flatnonzero(rows >= 0) if queries.persons[m] in counts]
    if not used:
        raise EvaluationError(
            f"{queries.source} and {gallery.source} must have people in common, received none: "
            f"{queries.persons[0]!r} and {gallery.persons[0]!r} …"
        )
    precisions: list[float] = []
    for m in used:
        scores = vectors @ features.of(queries.kind).vectors[rows[m]].astype(np.float64)
        precisions.append(float(average_precision_score(gallery_persons == queries.persons[m], scores)))
    people, persons = number_people([queries.persons[m] for m in used])
    relevant = np.array([counts[queries.persons[m]] for m in used])
    return RetrievalResult(
        lists=(queries.source, gallery.source),
        direction=DIRECTION[queries.kind],
        queries=len(used),
        gallery=len(vectors),
        skipped=skipped + skipped_items + int((rows >= 0).sum()) - len(used),
        people=people,
        mean_average_precision=bootstrap.mean(people, np.array(precisions), *persons),
        chance=float(np.mean([chance(int(count), len(vectors)) for count in relevant])),
    )


def chance(relevant: int, items: int) -> float:
    """The expected average precision of a random order of `items`, of which `relevant` are right.

    An item at rank k is right with probability r / n; then (k − 1)(r − 1) / (n − 1) of those before it are, on average.
    """
    harmonic = float(np.sum(1 / np.arange(1, items + 1)))
    before = (items - harmonic) * (relevant - 1) / (items - 1) if items > 1 else 0.0
    return (harmonic + before) / items
