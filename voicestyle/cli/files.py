"""The files that commands write: the image format by file name."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

FORMAT_OF_SUFFIX: Final = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}


def format_of(path: Path) -> str:
    """The image format of a file name's suffix. Raises click.BadParameter for other suffixes."""
    named = FORMAT_OF_SUFFIX.get(path.suffix.lower())
    if named is None:
        raise click.BadParameter(f"a face is written as {', '.join(FORMAT_OF_SUFFIX)}, got {path}", param_hint="-o")
    return named
