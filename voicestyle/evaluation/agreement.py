"""Agreement of the sex of speakers with the judged sex of their faces."""

from collections import Counter
from collections.abc import Sequence

SEXES: tuple[str, ...] = ("F", "M")


def count_by_sex(speakers: Sequence[str], faces: Sequence[str]) -> dict[str, dict[str, int]]:
    """table[speaker's sex][face's judged sex]: number of faces. The arguments are equally long lists of F and M."""
    pairs = Counter(zip(speakers, faces, strict=True))
    return {speaker: {face: pairs[speaker, face] for face in SEXES} for speaker in SEXES}
