"""Find the photographs in files and folders."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from voicestyle.photographs.errors import PhotographError

# Formats that `read_picture` rejects are among them, so that their files are reported and not passed over.
EXTENSIONS = frozenset(
    {".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
)

Identity = tuple[int, int]  # device and inode


def find_photographs(paths: Sequence[Path]) -> list[Path]:
    """List the files of `paths` and, recursively, of the folders among them, sorted, each path once.

    A file that is named itself is listed whatever its extension; in folders, only names with one of `EXTENSIONS` that
    do not start with a dot count. Links are followed, but no folder is listed twice, so a link to a parent folder ends.
    A link that leads nowhere is listed if its name is that of a photograph: reading it gives the reason.

    Raises:
        PhotographError: a path does not exist, or a folder cannot be listed.
    """
    found: set[Path] = set()
    visited: set[Identity] = set()
    for path in paths:
        if not os.path.lexists(path):
            raise PhotographError(f"photographs must be files or folders, {path} does not exist")
        found.update(_in_folder(path, visited) if path.is_dir() else [path])
    return sorted(found, key=lambda path: path.as_posix())


def _in_folder(folder: Path, visited: set[Identity]) -> Iterator[Path]:
    try:
        status = folder.stat()
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise PhotographError(f"a folder of photographs must be readable, {folder}: {error.strerror}") from error
    identity = (status.st_dev, status.st_ino)
    if identity in visited:
        return
    visited.add(identity)
    folders: list[Path] = []
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            folders.append(entry)
        elif entry.suffix.lower() in EXTENSIONS:
            yield entry
    # A real folder goes before a link to it, so that its files keep the paths that they have without the link.
    for entry in sorted(folders, key=lambda entry: (entry.is_symlink(), entry)):
        yield from _in_folder(entry, visited)
