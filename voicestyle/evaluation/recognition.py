"""The published protocols of voice-face recognition on list files."""

from collections.abc import Sequence

from voicestyle.evaluation.errors import EvaluationError
from voicestyle.evaluation.intervals import Bootstrap
from voicestyle.evaluation.lists import AnyList, Matching, RetrievalItems, Verification
from voicestyle.evaluation.matching import all_matching
from voicestyle.evaluation.people import People
from voicestyle.evaluation.report import MatchingResult, Recognition, RetrievalResult, Sampling, VerificationResult
from voicestyle.evaluation.retrieval import evaluate_retrieval
from voicestyle.evaluation.trials import Features
from voicestyle.evaluation.verification import all_verification


def keys_of(lists: Sequence[AnyList]) -> tuple[list[str], list[str]]:
    """The keys of recordings and of images that lists need, each once."""
    keys: dict[str, dict[str, None]] = {"voice": {}, "face": {}}
    for each in lists:
        if isinstance(each, Matching):
            other = "face" if each.probe_kind == "voice" else "voice"
            keys[each.probe_kind] |= dict.fromkeys(each.probes)
            keys[other] |= dict.fromkeys(key for candidates in each.candidates for key in candidates)
        elif isinstance(each, Verification):
            keys["voice"] |= dict.fromkeys(each.voices)
            keys["face"] |= dict.fromkeys(each.faces)
        else:
            keys[each.kind] |= dict.fromkeys(each.keys)
    return list(keys["voice"]), list(keys["face"])


def check_lists(lists: Sequence[AnyList]) -> None:
    """Raise EvaluationError unless there are lists and retrieval has none, or one of recordings and one of images."""
    if not lists:
        raise EvaluationError("at least one list is needed, received none")
    kinds = sorted(each.kind for each in lists if isinstance(each, RetrievalItems))
    if kinds not in ([], ["face", "voice"]):
        raise EvaluationError(
            f"retrieval needs one list of recordings and one of images, received {kinds.count('voice')} and "
            f"{kinds.count('face')}"
        )


def evaluate_lists(
    lists: Sequence[AnyList],
    features: Features,
    bootstrap: Bootstrap,
    *,
    people: People | None = None,
    one_to_n: int = 0,
) -> Recognition:
    """Evaluate all lists.

    people: also evaluates the groups G, N and GN within unrestricted lists. one_to_n: also evaluates 1:3 … 1:one_to_n
    matching with candidates drawn from unrestricted lists.

    Raises EvaluationError for lists that do not fit together or to the embeddings.
    """
    check_lists(lists)
    matching: list[MatchingResult] = []
    verification: list[VerificationResult] = []
    retrieval: list[RetrievalResult] = []
    for each in lists:
        if isinstance(each, Matching):
            matching += all_matching(each, features, bootstrap, people, one_to_n)
        elif isinstance(each, Verification):
            verification += all_verification(each, features, bootstrap, people)
    items = {each.kind: each for each in lists if isinstance(each, RetrievalItems)}
    if items:
        retrieval = [
            evaluate_retrieval(items[one], items[other], features, bootstrap)
            for one, other in (("voice", "face"), ("face", "voice"))
        ]
    return Recognition(
        voices=features.voices.source,
        faces=features.faces.source,
        sampling=Sampling(resamples=bootstrap.resamples, seed=bootstrap.seed),
        matching=tuple(matching),
        verification=tuple(verification),
        retrieval=tuple(retrieval),
        unusable={
            f"{kind} {key}": reason for kind in ("voice", "face") for key, reason in features.of(kind).unusable.items()
        },
    )
