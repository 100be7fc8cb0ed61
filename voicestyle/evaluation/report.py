"""The content of report.json (docs/evaluation.md describes each field)."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from voicestyle.evaluation.intervals import CONFIDENCE, Estimate
from voicestyle.evaluation.judge import Judgement

FORMAT = 2
FIRST, LAST = "first", "last"  # the kinds of faces, besides those of the preset INSTANT
CLEAN = "none"  # the name of the recording as it is, beside the conditions
Direction = Literal["voice to face", "face to voice"]
Share = Annotated[float, Meta(ge=0, le=1)]
DIRECTION: dict[str, Direction] = {"voice": "voice to face", "face": "face to voice"}  # by the kind of probe or query


class Sampling(Struct, frozen=True, kw_only=True):
    """How intervals were computed: the bootstrap's number of resampled sets of people and its seed."""

    resamples: int
    seed: int
    confidence: float = CONFIDENCE


class MatchingResult(Struct, frozen=True, kw_only=True):
    """1:N matching. derived: the group was selected by the table of people. drawn: candidates were added."""

    list: str
    direction: Direction
    group: str | None
    derived: bool
    candidates: int
    drawn: bool
    trials: int
    skipped: int
    people: int
    accuracy: Estimate
    chance: Share


class VerificationResult(Struct, frozen=True, kw_only=True):
    """Verification. same: pairs of one person. roc: true-positive rate at the false-positive rates 0, 0.01 … 1."""

    list: str
    group: str | None
    derived: bool
    pairs: int
    same: int
    skipped: int
    people: int
    auc: Estimate
    eer: Estimate
    roc: tuple[Share, ...]


class RetrievalResult(Struct, frozen=True, kw_only=True):
    """Retrieval. chance: expected mean average precision of a random order."""

    lists: tuple[str, str]
    direction: Direction
    queries: int
    gallery: int
    skipped: int
    people: int
    mean_average_precision: Estimate
    chance: Share


class Recognition(Struct, frozen=True, kw_only=True):
    """The published protocols. voices, faces: what the embeddings are. unusable: files that could not be embedded."""

    voices: str
    faces: str
    sampling: Sampling
    matching: tuple[MatchingResult, ...]
    verification: tuple[VerificationResult, ...]
    retrieval: tuple[RetrievalResult, ...]
    unusable: dict[str, str]


class Networks(Struct, frozen=True, kw_only=True):
    """Which networks are in the loss, and which only judge.

    loss: the encoders that give the similarity. loss_sources: what the bundle says its networks were made from,
    networks below its encoders included. dtype: of generator and face encoder.
    """

    loss: str
    loss_sources: tuple[str, ...]
    generator: str
    recogniser: str
    sex_and_age: str | None
    dtype: str


class Sex(Struct, frozen=True, kw_only=True):
    """Faces judged F or M, by the sex of their speaker; the share that agrees, also of each sex of speakers.

    youngest: the lowest age judged of a face in years.
    """

    table: dict[str, dict[str, int]]
    agreement: Estimate
    agreement_by_sex: dict[str, Estimate]
    youngest: float


class Consistency(Struct, frozen=True, kw_only=True):
    """Speaker consistency of faces, by the recogniser; `docs/evaluation.md` defines each figure.

    within_sex: the same with the faces of the speaker's sex alone. counts: of pairs in 100 bins of cosine, -1 to 1.
    """

    speakers: int
    halves: bool
    auc: Estimate
    nearest: Estimate
    nearest_chance: Share
    between_speakers: Estimate
    same_speaker: Estimate
    auc_within_sex: Estimate | None
    nearest_within_sex: Estimate | None
    nearest_chance_within_sex: Share | None
    between_speakers_of_one_sex: Estimate | None
    same_counts: tuple[int, ...]
    different_counts: tuple[int, ...]


class Drift(Struct, frozen=True, kw_only=True):
    """Change from the first face, in levels of 255: mean, mean of the absolute value, largest absolute."""

    mean: Estimate
    mean_absolute: Estimate
    largest_absolute: float
    spread_of_first_faces: float


class FaceFigures(Struct, frozen=True, kw_only=True):
    """The figures of one kind of faces.

    similarity: mean cosine of voice and face by the encoders in the loss. between_speakers: mean cosine between faces
    of different speakers by the recogniser, also of each sex. skin, brightness, side_light: None for first faces.
    """

    similarity: Estimate
    sex: Sex | None
    consistency: Consistency | None
    between_speakers: Estimate | None
    between_speakers_by_sex: dict[str, Estimate]
    skin: Drift | None
    brightness: Drift | None
    side_light: Drift | None


class BankFaces(Struct, frozen=True, kw_only=True):
    """Faces of the latent bank: their number and the mean cosine between two, also of one judged sex and of each."""

    count: int
    between: float | None
    between_of_one_sex: float | None
    between_by_sex: dict[str, float]


class ConditionFigures(Struct, frozen=True, kw_only=True):
    """Faces of recordings under one condition.

    to_clean: mean cosine of a face to that of the recording without condition, by the recogniser.
    """

    recordings: int
    similarity: Estimate
    sex: Sex | None
    to_clean: Estimate


class Conditions(Struct, frozen=True, kw_only=True):
    """Recording conditions, with the preset and the steps of their faces. figures: by condition, first `none`."""

    preset: str
    steps: int
    figures: dict[str, ConditionFigures]


class Sensitivity(Struct, frozen=True, kw_only=True):
    """Mean absolute change of a last face's similarity to its voice where only one thing of the image is changed.

    another_speaker: where the whole face is replaced by that of another speaker; also by one of the same sex. spread:
    standard deviation, over speakers, of the mean similarity of their last faces.
    """

    faces: int
    background: Estimate | None
    light: Estimate | None
    colour: Estimate | None
    another_speaker: Estimate | None
    another_speaker_of_one_sex: Estimate | None
    spread: float


class RowFace(Struct, frozen=True, kw_only=True):
    """One face and what was measured of it. file: in the report's folder."""

    file: str
    similarity: float
    skin: float
    brightness: float
    side_light: float
    judged: Judgement | None


class FaceRow(Struct, frozen=True, kw_only=True):
    """One recording and its faces, by kind, and those under conditions.

    number: of the speaker, from 1 in the order of the recordings.
    """

    speaker: str
    number: int
    sex: str
    recording: str
    prototypes: tuple[int, ...]
    faces: dict[str, RowFace]
    conditions: dict[str, RowFace]


class Generation(Struct, frozen=True, kw_only=True):
    """The figures of generated faces.

    bundle: name@version. steps: of last faces. skipped: recordings that could not be used. faces: figures by kind:
    first, instant where these were made, last.
    """

    bundle: str
    steps: int
    face_seed: int
    networks: Networks
    sampling: Sampling
    speakers: int
    recordings: int
    skipped: dict[str, str]
    faces: dict[str, FaceFigures]
    bank: BankFaces
    distinct_prototype_sets: int
    conditions: Conditions | None
    sensitivity: Sensitivity | None
    rows: tuple[FaceRow, ...]


class Report(Struct, frozen=True, kw_only=True):
    """report.json. A run replaces its own section and keeps the other one."""

    voicestyle: str
    recognition: Recognition | None = None
    generation: Generation | None = None
    format: int = FORMAT


def to_json(report: Report) -> bytes:
    """The content of report.json; numbers with six decimals."""
    return msgspec.json.format(msgspec.json.encode(_rounded(msgspec.to_builtins(report))), indent=1) + b"\n"


def _rounded(value: object) -> object:
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(each) for each in value]
    return value
