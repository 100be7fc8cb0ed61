"""Rows of results: JSON lines, and the spread that stands in them in place of single numbers."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

RESULTS = Path(__file__).parent / "results"

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Spread:
    """Median, least and most of repeated measurements."""

    median: float
    min: float
    max: float

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread":
        """Raises ValueError where there are none."""
        found = sorted(values)
        if not found:
            raise ValueError("a spread needs at least one value, got none")
        return cls(median(found), found[0], found[-1])

    def scaled(self, factor: float) -> "Spread":
        """All three times a positive factor."""
        return Spread(self.median * factor, self.min * factor, self.max * factor)

    def as_row(self) -> dict[str, float]:
        """Its part of a row, four digits each."""
        return {name: significant(value) for name, value in asdict(self).items()}


def significant(value: float, digits: int = 4) -> float:
    """`value` with so many digits."""
    return float(f"{value:.{digits}g}")


def append(path: Path, row: Row) -> None:
    """Add a row to a file of JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")


def read(path: Path) -> list[Row]:
    """The rows of a file; none where there is no file."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
