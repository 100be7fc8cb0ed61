"""Gender and nationality of people, and the groups of the protocols that follow from them."""

import csv
from collections.abc import Callable
from pathlib import Path

from voicestyle.evaluation.errors import EvaluationError
from voicestyle.evaluation.tables import open_table

NAMES = ("VoxCeleb1 ID", "VGGFace1 ID")
GENDER, NATIONALITY = "Gender", "Nationality"
SAME: dict[str, tuple[str, ...]] = {"G": (GENDER,), "N": (NATIONALITY,), "GN": (GENDER, NATIONALITY)}

SameGroup = Callable[[str, str], bool]


class People:
    """The table of people, as published with VoxCeleb1: `vox1_meta.csv`, split at tabs."""

    def __init__(self, source: str, rows: dict[str, dict[str, str]]) -> None:
        self.source = source
        self._rows = rows  # by either name of a person

    def same(self, group: str) -> SameGroup:
        """Whether two people have the same gender (G), nationality (N) or both (GN).

        The function raises EvaluationError for a person who is not in the table.
        """
        columns = SAME[group]
        return lambda one, other: all(self._row(one)[column] == self._row(other)[column] for column in columns)

    def _row(self, person: str) -> dict[str, str]:
        if person not in self._rows:
            raise EvaluationError(f"{self.source} must have a row for each person, received none for {person!r}")
        return self._rows[person]


def read_people(path: Path) -> People:
    """Read a table with the columns VoxCeleb1 ID, VGGFace1 ID, Gender and Nationality, split at tabs.

    Raises EvaluationError for other columns, an empty field or a name that occurs twice; OSError.
    """
    wanted = (*NAMES, GENDER, NATIONALITY)
    rows: dict[str, dict[str, str]] = {}
    with open_table(path) as file:
        reader = csv.DictReader(file, delimiter="\t")
        if missing := [column for column in wanted if column not in (reader.fieldnames or ())]:
            raise EvaluationError(
                f"{path} must have the columns {', '.join(wanted)}, received none named {missing[0]!r}"
            )
        for row in reader:
            for column in wanted:
                if not row[column]:
                    raise EvaluationError(f"{path}, line {reader.line_num}: must have a {column}, received {row}")
            for name in {row[column] for column in NAMES}:
                if name in rows:
                    raise EvaluationError(
                        f"{path}, line {reader.line_num}: {name!r} must occur once, received it twice"
                    )
                rows[name] = row
    return People(path.name, rows)
