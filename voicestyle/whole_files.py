"""Files that are written whole or not at all: an interruption or a power failure leaves the old file or the new one."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """Write a file; see `whole_file`. Raises OSError."""
    with whole_file(path) as draft:
        draft.write_bytes(content)


@contextmanager
def whole_file(path: Path) -> Generator[Path]:
    """A draft to write; after the block it is forced to the disk and renamed to `path`, or removed on an error."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield draft
        _sync(draft)
        draft.replace(path)
        _sync(path.parent)  # the name, too, survives a power failure
    finally:
        draft.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
