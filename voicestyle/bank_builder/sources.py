"""Find the photographs and videos of a build, give them keys and cut them into groups.

A photograph's key is its path relative to the folder that was given. A video's key is `NAME/1.6/VIDEO`, as in the
published CSV; its person's photographs are those whose key begins with `NAME/`.
"""

import hashlib
import os
import stat
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cmpc2.memory import read_videos
from voicestyle.bank_builder.errors import BankError
from voicestyle.bank_builder.plan import Group, Source, Video
from voicestyle.bundle import sha256
from voicestyle.photographs import PhotographError, find_photographs
from voicestyle.photographs.files import EXTENSIONS

MAX_FILE_BYTES = 64 * 2**20  # a file is held in memory when it goes to another machine


@dataclass(frozen=True)
class Sources:
    """What a build reads.

    groups: sorted by key. paths: of each photograph by key. frames: of each video by key. unused: photographs of
    persons without a video.
    """

    groups: tuple[Group, ...]
    paths: Mapping[str, Path]
    frames: Mapping[str, tuple[Path, ...]]
    unused: int = 0


def find_sources(photographs: Sequence[Path], csv: Path | None = None, frames: Path | None = None) -> Sources:
    """List and hash all files.

    csv: the published list of videos, with frames of them in the folder `frames`, at `NAME/1.6/VIDEO/*.jpg`. Without
    it, each photograph is a group of its own.

    Raises:
        BankError: no photograph, a path that does not exist, two photographs with one key.
        CheckpointError: a CSV of another format.
        OSError: a path that cannot be opened.
    """
    paths = _keyed(photographs)
    if csv is None or frames is None:
        groups = tuple(Group((describe(key, path),)) for key, path in sorted(paths.items()))
        return Sources(groups, paths, {})
    persons = _by_person(paths)
    videos = _by_person(dict.fromkeys(read_videos(csv)))
    if not persons.keys() & videos.keys():
        raise BankError(
            f"a photograph's path must begin with the name of a person in {csv}, such as {min(videos, default='?')!r}; "
            f"got {min(paths)!r}"
        )
    found = {key: tuple(find_frames(frames / key)) for keys in videos.values() for key in keys}
    groups = tuple(
        Group(
            tuple(describe(key, paths[key]) for key in sorted(persons.get(person, ()))),
            tuple(_describe_video(key, found[key]) for key in sorted(videos[person])),
        )
        for person in sorted(videos)
    )
    unused = sum(len(keys) for person, keys in persons.items() if person not in videos)
    return Sources(groups, paths, found, unused)


def find_frames(folder: Path) -> list[Path]:
    """The images in the folder of a video, sorted; none if there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in EXTENSIONS and path.is_file())


def describe(key: str, path: Path) -> Source:
    """A photograph by its content, or why it cannot be read."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            return Source(key, unreadable="must be a file, received a device or a pipe")
        if status.st_size > MAX_FILE_BYTES:
            limit, received = MAX_FILE_BYTES // 2**20, status.st_size / 2**20
            return Source(key, unreadable=f"must have at most {limit} MiB, received {received:.1f} MiB")
        return Source(key, status.st_size, sha256(path))
    except OSError as error:
        return Source(key, unreadable=f"must be readable: {error.strerror}")


def _describe_video(key: str, frames: Sequence[Path]) -> Video:
    digest = hashlib.sha256()
    for frame in frames:
        digest.update(f"{frame.name}\0{sha256(frame)}\n".encode(errors="surrogateescape"))
    return Video(key, len(frames), digest.hexdigest())


def _keyed(photographs: Sequence[Path]) -> dict[str, Path]:
    paths: dict[str, Path] = {}
    for given in photographs:
        try:
            found = find_photographs([given])
        except PhotographError as error:
            raise BankError(str(error)) from error
        for path in found:
            key = _key_of(path.relative_to(given) if given.is_dir() else Path(given.name))
            if paths.setdefault(key, path) != path:
                raise BankError(
                    f"photographs must differ in their paths below the folders given, got {paths[key]} and {path}; "
                    "give the folder above both"
                )
    if not paths:
        raise BankError(f"there must be a photograph, got none in {', '.join(map(str, photographs)) or 'no folder'}")
    return paths


def _key_of(path: Path) -> str:
    # A name may hold bytes that are not UTF-8, which no file of the bank could hold.
    return os.fsencode(path.as_posix()).decode("utf-8", "backslashreplace")


def _by_person(keys: Mapping[str, object]) -> dict[str, list[str]]:
    persons: dict[str, list[str]] = defaultdict(list)
    for key in keys:
        persons[key.split("/", 1)[0]].append(key)
    return dict(persons)
