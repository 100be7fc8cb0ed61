"""The keys of recordings and images: paths as in the list files, without the suffix of the file."""

from pathlib import PurePosixPath

LOG_MEL_SUFFIX = ".npy"  # a log-mel [T, 64]; it is taken before a recording
VOICE_SUFFIXES = (LOG_MEL_SUFFIX, ".wav", ".flac", ".ogg", ".mp3")
FACE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


def key_of(path: str) -> str:
    """The key of a path, such as `id10002/w9H-ZMvdE9M/00001`. Raises ValueError for a path that leaves its folder."""
    pure = PurePosixPath(path)
    if not path or pure.is_absolute() or ".." in pure.parts:
        raise ValueError(f"a path must be relative and without .., received {path!r}")
    return str(pure.with_suffix("")) if pure.suffix.lower() in (*VOICE_SUFFIXES, *FACE_SUFFIXES) else str(pure)


def person_of(key: str) -> str:
    """The person of a key: its first folder."""
    return PurePosixPath(key).parts[0]
