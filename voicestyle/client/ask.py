"""One request: a voice and its options, as HTTP and gRPC want them.

What values the options may have is the bundle's business, and the service says so; here only their types are checked.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypedDict

AUDIO: Final = "audio"  # the audio's name among the gRPC inputs
OPTIONS: Final = ("steps", "seed", "size", "format", "previews", "preset")

WORDS: Final = {"format": "png, jpeg or webp", "preset": "default or fast"}  # the others are whole numbers


class Options(TypedDict, total=False):
    """What may be asked for; what is left out or None is left to the service.

    steps: optimisation steps. seed: draws the noise. size: pixels a side. format: png, jpeg or webp. previews: small
    pictures on the way, evenly spread over the steps. preset: default or fast, of which the latter takes fewer steps.
    """

    steps: int | None
    seed: int | None
    size: int | None
    format: str | None
    previews: int | None
    preset: str | None


@dataclass(frozen=True)
class Ask:
    """The bytes of an audio file and the options. Raises TypeError or ValueError for what no server could read."""

    audio: bytes = field(repr=False)
    steps: int | None = None
    seed: int | None = None
    size: int | None = None
    format: str | None = None
    previews: int | None = None
    preset: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.audio, bytes):
            raise TypeError(f"audio must be the bytes of a file, or its Path, got {type(self.audio).__name__}")
        for name in OPTIONS:
            value: object = getattr(self, name)
            kind = str if name in WORDS else int
            if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
                raise TypeError(f"{name} must be {kind.__name__} or None, got {type(value).__name__}")
        for name, example in WORDS.items():
            word = getattr(self, name)
            if word is not None and not (word.isascii() and word.isalnum()):
                raise ValueError(f"{name} must be a word such as {example}, got {word!r}")

    def words(self) -> dict[str, str]:
        """The options that were given, as text."""
        given = {name: getattr(self, name) for name in OPTIONS}
        return {name: str(value) for name, value in given.items() if value is not None}

    def headers(self) -> dict[str, str]:
        """The headers of a request whose body is the audio and whose answer is JSON."""
        words = self.words() | {"output": "json"}
        options = {f"X-VoiceStyle-{name.capitalize()}": word for name, word in words.items()}
        return {"Content-Type": "application/octet-stream", **options}

    def inputs(self) -> dict[str, bytes]:
        """The inputs of a gRPC request."""
        return {AUDIO: self.audio, **{name: word.encode() for name, word in self.words().items()}}


def read_audio(audio: bytes | Path) -> bytes:
    """The bytes of a voice that may be given as a file. Raises OSError where that cannot be read."""
    return audio.read_bytes() if isinstance(audio, Path) else audio
