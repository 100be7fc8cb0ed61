"""The content of report.json (docs/evaluation.md describes each field)."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from voicestyle.evaluation.intervals import CONFIDENCE, Estimate
from voicestyle.evaluation.judge import Judgement

FORMAT = 1
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
    """Which networks are in the loss, and which only judge. dtype: of generator and face encoder."""

    loss: str
    generator: str
    recogniser: str
    sex_and_age: str | None
    dtype: str


class SexTable(Struct, frozen=True, kw_only=True):
    """Faces judged F or M, by the sex of their speaker; the share that agrees."""

    table: dict[str, dict[str, int]]
    agreement: Estimate


class Sex(Struct, frozen=True, kw_only=True):
    """Sex agreement of first and last faces, and the lowest age judged of a last face in years."""

    first: SexTable
    last: SexTable
    youngest: float


class Similarity(Struct, frozen=True, kw_only=True):
    """Mean cosine of voice and face by the encoders in the loss, of first and of last faces."""

    first: Estimate
    last: Estimate


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


class Diversity(Struct, frozen=True, kw_only=True):
    """Mean cosine between last faces of different speakers beside that between faces of the bank, by judged sex too."""

    between_speakers: Estimate | None
    bank_faces: int
    between_bank_faces: float | None
    between_bank_faces_of_one_sex: float | None
    distinct_prototype_sets: int


class Drift(Struct, frozen=True, kw_only=True):
    """Change from the first to the last face, in levels of 255: mean, mean of the absolute value, largest absolute."""

    mean: Estimate
    mean_absolute: Estimate
    largest_absolute: float
    spread_of_first_faces: float


class FaceRow(Struct, frozen=True, kw_only=True):
    """One recording and its faces. A pair holds the values of first and last face. files: in the report's folder."""

    speaker: str
    sex: str
    recording: str
    files: tuple[str, str]
    similarity: tuple[float, float]
    skin: tuple[float, float]
    brightness: tuple[float, float]
    side_light: tuple[float, float]
    judged: tuple[Judgement, Judgement] | None
    prototypes: tuple[int, ...]


class Generation(Struct, frozen=True, kw_only=True):
    """The figures of generated faces. bundle: name@version. skipped: recordings that could not be used."""

    bundle: str
    steps: int
    face_seed: int
    networks: Networks
    sampling: Sampling
    speakers: int
    recordings: int
    skipped: dict[str, str]
    similarity: Similarity
    sex: Sex | None
    consistency: Consistency | None
    consistency_of_first_faces: Consistency | None
    diversity: Diversity
    skin: Drift
    brightness: Drift
    side_light: Drift
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
