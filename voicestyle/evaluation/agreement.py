"""Agreement of the sex of speakers with the judged sex of their faces."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

SEXES: tuple[str, ...] = ("F", "M")


@dataclass(frozen=True)
class Agreement:
    """table[speaker's sex][face's judged sex]: number of speakers."""

    table: dict[str, dict[str, int]]

    @classmethod
    def of(cls, speakers: Sequence[str], faces: Sequence[str]) -> "Agreement":
        """Count two equally long, non-empty lists of F and M. Raises ValueError otherwise."""
        if len(speakers) != len(faces) or not speakers:
            raise ValueError(f"every speaker must have one face, received {len(speakers)} and {len(faces)}")
        pairs = Counter(zip(speakers, faces, strict=True))
        return cls({speaker: {face: pairs[speaker, face] for face in SEXES} for speaker in SEXES})

    @property
    def share(self) -> float:
        """Share of faces judged to be of their speaker's sex, 0 to 1."""
        agreed = sum(self.table[sex][sex] for sex in SEXES)
        return agreed / sum(sum(row.values()) for row in self.table.values())

    def __str__(self) -> str:
        lines = ["speaker   face judged F   face judged M"]
        lines += [f"{sex:7}   {self.table[sex]['F']:13}   {self.table[sex]['M']:13}" for sex in SEXES]
        return "\n".join([*lines, f"agreement {self.share:.1%}"])
