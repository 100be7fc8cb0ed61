"""The list files of CMPC's published protocols (docs/evaluation.md shows one of each).

Matching: lines without header, `PROBE TRUE OTHER …`, split at blanks. Verification: CSV with six columns, as published
with Learnable PINs (arXiv 1805.00833). Retrieval: two columns split at a tab, one list of recordings and one of images.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from voicestyle.evaluation.errors import EvaluationError
from voicestyle.evaluation.keys import FACE_SUFFIXES, VOICE_SUFFIXES, key_of, person_of

VERIFICATION_HEADER = "id,voice-speaker-id,face-speaker-id,label,voice-path,face-path"
RETRIEVAL_HEADERS = {"VoxCeleb1 ID\twav": "voice", "VoxCeleb1 ID\tjpg": "face"}
GROUPS = {"random": "U", "U": "U", "G": "G", "N": "N", "GN": "GN", "A": "A", "GNA": "GNA"}

# Verification lists name VoxCeleb1 files in a form of their own: NAME/VIDEO_0000001.wav, NAME/VIDEO/0001225.jpg.
_SHORT_VOICE = re.compile(r"[^/]+/(?P<video>.{11})_00(?P<part>\d{5})\.wav")
_SHORT_FACE = re.compile(r"(?P<name>[^/]+)/(?P<rest>.{11}/\d+\.jpg)")
FACE_CROP = "1.6"  # folder of face crops in the published paths
FIRST_ID = 10000  # VoxCeleb1 numbers people from id10001 on, the verification lists from 1 on


@dataclass(frozen=True)
class Matching:
    """Trials of 1:N matching. source: name of the file. probe_kind: voice or face. group: None where not named.

    probes: keys [M]. candidates: keys [M][N], the true one first. persons: the person of each probe [M].
    candidate_persons: [M][N], under the same names.
    """

    source: str
    probe_kind: str
    group: str | None
    probes: list[str]
    candidates: list[list[str]]
    persons: list[str]
    candidate_persons: list[list[str]]


@dataclass(frozen=True)
class Verification:
    """Pairs of a recording and an image: keys, persons and labels (True: the same person), all [M]."""

    source: str
    group: str | None
    voices: list[str]
    faces: list[str]
    voice_persons: list[str]
    face_persons: list[str]
    labels: list[bool]


@dataclass(frozen=True)
class RetrievalItems:
    """One side of the retrieval: keys and persons, both [M]. kind: voice or face."""

    source: str
    kind: str
    keys: list[str]
    persons: list[str]


AnyList = Matching | Verification | RetrievalItems
Broken = Callable[[str, object], EvaluationError]  # from a rule and what was received


def read_list(path: Path) -> AnyList:
    """Read a list file; its first line tells which protocol it belongs to.

    Raises EvaluationError with file, line, rule and what was received; OSError for a path that cannot be opened.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise EvaluationError(f"{path} must be a list file in UTF-8: {error}") from None
    if not lines:
        raise EvaluationError(f"{path} must have at least one line, received an empty file")
    if lines[0] == VERIFICATION_HEADER:
        return _read_verification(path, lines[1:])
    if lines[0] in RETRIEVAL_HEADERS:
        return _read_retrieval(path, lines[1:], RETRIEVAL_HEADERS[lines[0]])
    return _read_matching(path, lines)


def group_of(name: str) -> str | None:
    """The group in a published file name, such as matching_v2f_GN.csv or veriflist_test_random_seenheard.txt."""
    if re.search(r"matching_1_\d+", name):
        return "U"
    found = re.search(r"(?:matching_(?:v2f|f2v)|veriflist_test)_(random|GNA|GN|U|G|N|A)(?:[_.]|$)", name)
    return GROUPS[found[1]] if found else None


def _numbered(path: Path, lines: list[str], start: int) -> Iterator[tuple[str, Broken]]:
    """Each line with a function that makes the error of a broken rule."""
    if not lines:
        raise EvaluationError(f"{path} must have lines after its header, received none")
    for number, line in enumerate(lines, start):

        def broken(rule: str, received: object, number: int = number) -> EvaluationError:
            return EvaluationError(f"{path}, line {number}: {rule}, received {received!r}")

        yield line, broken


def _read_matching(path: Path, lines: list[str]) -> Matching:
    count = len(lines[0].split())
    kind = _kind(lines[0].split()[0]) if count else None
    if count < 3 or kind is None:
        raise EvaluationError(
            f"{path}, line 1: must be a known header, or a probe and at least two candidates split at blanks, "
            f"the probe with one of {', '.join((*VOICE_SUFFIXES, *FACE_SUFFIXES))}, received {lines[0][:200]!r}"
        )
    other = "face" if kind == "voice" else "voice"
    probes: list[str] = []
    candidates: list[list[str]] = []
    known: dict[str, str] = {}  # the probes' name of a person, by the candidates' name, and the other way round
    reverse: dict[str, str] = {}
    for line, broken in _numbered(path, lines, 1):
        words = line.split()
        if len(words) != count:
            raise broken(f"must have {count} paths as line 1", line)
        if _kind(words[0]) != kind or any(_kind(word) != other for word in words[1:]):
            raise broken(f"must be the path of a {kind} and then of {other}s", line)
        probe, *others = [_key(word, broken) for word in words]
        person, true = person_of(probe), person_of(others[0])
        for name, alias, seen in ((true, person, known), (person, true, reverse)):
            if seen.setdefault(name, alias) != alias:
                raise broken(f"{name} and {seen[name]} must always be one person, as in an earlier line", line)
        if true in {person_of(key) for key in others[1:]}:
            raise broken("candidates after the first must be of other people", line)
        probes.append(probe)
        candidates.append(others)
    return Matching(
        source=path.name,
        probe_kind=kind,
        group=group_of(path.name),
        probes=probes,
        candidates=candidates,
        persons=[person_of(probe) for probe in probes],
        candidate_persons=[[known.get(person_of(key), person_of(key)) for key in keys] for keys in candidates],
    )


def _read_verification(path: Path, lines: list[str]) -> Verification:
    found = Verification(path.name, group_of(path.name), [], [], [], [], [])
    for line, broken in _numbered(path, lines, 2):
        words = line.split(",")
        if len(words) != 6:
            raise broken("must have the six columns of the header", line)
        _, speaker, person, label, voice, face = words
        if label not in ("0", "1") or (label == "1") != (speaker == person):
            raise broken("label must be 1 where both ids are equal and 0 where they differ", line)
        if _kind(voice) != "voice" or _kind(face) != "face":
            raise broken("must end with the path of a recording and that of an image", line)
        if short := _SHORT_VOICE.fullmatch(voice):
            short_face = _SHORT_FACE.fullmatch(face)
            if not short_face or not speaker.isdecimal() or not person.isdecimal():
                raise broken("a path NAME/VIDEO_0000001.wav needs numeric ids and a path NAME/VIDEO/FRAME.jpg", line)
            speaker, person = (f"id{FIRST_ID + int(number)}" for number in (speaker, person))
            voice = f"{speaker}/{short['video']}/{short['part']}.wav"
            face = f"{short_face['name']}/{FACE_CROP}/{short_face['rest']}"
        found.voices.append(_key(voice, broken))
        found.faces.append(_key(face, broken))
        found.voice_persons.append(speaker)
        found.face_persons.append(person)
        found.labels.append(label == "1")
    if len(set(found.labels)) < 2:
        raise EvaluationError(f"{path} must have pairs of one person and of two, received only one kind")
    return found


def _read_retrieval(path: Path, lines: list[str], kind: str) -> RetrievalItems:
    found = RetrievalItems(path.name, kind, [], [])
    for line, broken in _numbered(path, lines, 2):
        words = line.split("\t")
        if len(words) != 2 or not words[0]:
            raise broken("must be a person and a path, split at a tab", line)
        if _kind(words[1]) != kind:
            raise broken(f"must have the path of a {kind}", line)
        found.persons.append(words[0])
        found.keys.append(_key(words[1], broken))
    key, times = Counter(found.keys).most_common(1)[0]
    if times > 1:
        raise EvaluationError(f"{path} must list each path once, received {key} {times} times")
    return found


def _kind(path: str) -> str | None:
    suffix = Path(path).suffix.lower()
    return "voice" if suffix in VOICE_SUFFIXES else "face" if suffix in FACE_SUFFIXES else None


def _key(path: str, broken: Broken) -> str:
    try:
        return key_of(path)
    except ValueError:
        raise broken("a path must be relative and without ..", path) from None
