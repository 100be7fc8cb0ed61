"""Tables of text, such as CSV files."""

import csv
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from voicestyle.evaluation.errors import EvaluationError


@contextmanager
def open_table(path: Path) -> Generator[TextIO]:
    """A file to read with the module `csv`. Raises EvaluationError for one that is not a table in UTF-8; OSError."""
    with path.open(newline="", encoding="utf-8") as file:
        try:
            yield file
        except (UnicodeDecodeError, csv.Error) as error:
            raise EvaluationError(f"{path} must be a table in UTF-8: {error}") from None
