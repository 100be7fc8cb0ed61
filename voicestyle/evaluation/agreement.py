"""Figures over the judged faces."""

from collections.abc import Sequence
from dataclasses import dataclass

SEXES: tuple[str, ...] = ("F", "M")


@dataclass(frozen=True)
class Agreement:
    """table[speaker][face]: how many speakers of a sex got a face that was judged to be of a sex."""

    table: dict[str, dict[str, int]]

    @classmethod
    def of(cls, speakers: Sequence[str], faces: Sequence[str]) -> "Agreement":
        """Count two equally long lists of F and M."""
        if len(speakers) != len(faces) or not speakers:
            raise ValueError(f"every speaker must have one face, received {len(speakers)} and {len(faces)}")
        table: dict[str, dict[str, int]] = {sex: dict.fromkeys(SEXES, 0) for sex in SEXES}
        for speaker, face in zip(speakers, faces, strict=True):
            table[speaker][face] += 1
        return cls(table)

    @property
    def share(self) -> float:
        """Faces judged to be of their speaker's sex, 0 to 1."""
        agreed = sum(self.table[sex][sex] for sex in SEXES)
        return agreed / sum(sum(row.values()) for row in self.table.values())

    def __str__(self) -> str:
        lines = ["speaker   face judged F   face judged M"]
        lines += [f"{sex:7}   {self.table[sex]['F']:13}   {self.table[sex]['M']:13}" for sex in SEXES]
        return "\n".join([*lines, f"agreement {self.share:.1%}"])
