"""The figures of one set of faces: sex agreement, speaker consistency, diversity, drift in skin and light."""

import numpy as np

from voicestyle.evaluation.agreement import SEXES, count_by_sex
from voicestyle.evaluation.consistency import (
    FacesOfSpeakers,
    between_speakers,
    between_speakers_by_sex,
    mean_cosine,
    measure_consistency,
)
from voicestyle.evaluation.intervals import Bootstrap, number_people
from voicestyle.evaluation.measured_faces import MeasuredBank, MeasuredFaces
from voicestyle.evaluation.report import BankFaces, ConditionFigures, Drift, FaceFigures, Sex


def face_figures(faces: MeasuredFaces, first: MeasuredFaces, bootstrap: Bootstrap, *, halves: bool) -> FaceFigures:
    """The figures of faces. first: the first faces of the same recordings, from which the others drift."""
    of_speakers = FacesOfSpeakers(faces.vectors, faces.speakers, faces.sexes)
    drifts: dict[str, Drift | None] = {
        name: None if faces is first else measure_drift(faces, first, name, bootstrap)
        for name in ("skin", "brightness", "side")
    }
    people, (persons,) = number_people(faces.speakers)
    return FaceFigures(
        similarity=bootstrap.mean(people, faces.similarity, persons),
        sex=measure_sex(faces, bootstrap),
        consistency=measure_consistency(of_speakers, bootstrap, halves=halves),
        between_speakers=between_speakers(of_speakers, bootstrap),
        between_speakers_by_sex=between_speakers_by_sex(faces.vectors, faces.speakers, faces.sexes, bootstrap),
        skin=drifts["skin"],
        brightness=drifts["brightness"],
        side_light=drifts["side"],
    )


def condition_figures(faces: MeasuredFaces, clean: MeasuredFaces, bootstrap: Bootstrap) -> ConditionFigures:
    """The figures of faces under one condition. clean: the faces of all recordings without it."""
    people, (persons,) = number_people(faces.speakers)
    cosines = (faces.vectors * clean.vectors[list(faces.numbers)]).sum(axis=1).clip(-1, 1)
    return ConditionFigures(
        recordings=len(faces.recordings),
        similarity=bootstrap.mean(people, faces.similarity, persons),
        sex=measure_sex(faces, bootstrap),
        to_clean=bootstrap.mean(people, cosines, persons),
    )


def bank_figures(bank: MeasuredBank) -> BankFaces:
    """The mean cosines between faces of the bank."""
    sexes = np.array([judgement.sex for judgement in bank.judged or ()])
    by_sex: dict[str, float] = {}
    for sex in SEXES if bank.judged else ():
        vectors = bank.vectors[sexes == sex]
        if (cosine := mean_cosine(vectors, [sex] * len(vectors))) is not None:
            by_sex[sex] = cosine
    return BankFaces(
        count=len(bank.vectors),
        between=mean_cosine(bank.vectors, [""] * len(bank.vectors)),
        between_of_one_sex=mean_cosine(bank.vectors, sexes.tolist()) if bank.judged else None,
        between_by_sex=by_sex,
    )


def measure_sex(faces: MeasuredFaces, bootstrap: Bootstrap) -> Sex | None:
    """Sex agreement, in all and of each sex of speakers; None without a judge."""
    if not faces.judged:
        return None
    judged = [judgement.sex for judgement in faces.judged]
    speakers, sexes = np.array(faces.speakers), np.array(faces.sexes)
    agrees = (sexes == np.array(judged)).astype(np.float64)
    people, (persons,) = number_people(faces.speakers)
    by_sex = {}
    for sex in SEXES:
        kept = sexes == sex
        if kept.any():
            count, (numbers,) = number_people(speakers[kept].tolist())
            by_sex[sex] = bootstrap.share(count, agrees[kept], numbers)
    return Sex(
        table=count_by_sex(faces.sexes, judged),
        agreement=bootstrap.share(people, agrees, persons),
        agreement_by_sex=by_sex,
        youngest=min(judgement.age for judgement in faces.judged),
    )


def measure_drift(faces: MeasuredFaces, first: MeasuredFaces, name: str, bootstrap: Bootstrap) -> Drift:
    """The change of a figure of `Light` from the first faces."""
    before, after = (np.array([getattr(light, name) for light in each.lights]) for each in (first, faces))
    change = after - before
    people, (persons,) = number_people(faces.speakers)
    return Drift(
        mean=bootstrap.mean(people, change, persons),
        mean_absolute=bootstrap.mean(people, np.abs(change), persons),
        largest_absolute=float(np.abs(change).max()),
        spread_of_first_faces=float(before.std()),
    )
