"""From a row that TorchServe hands over to audio bytes and option words.

A row holds either a raw body or one entry per field of a multipart form; header names keep the client's
spelling. What the words mean is decided by `voicestyle.options.Options.parse`, the one parser there is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from voicestyle.errors import CallerError

OPTION_PREFIX: Final = "x-voicestyle-"
BODY: Final = "body"
AUDIO: Final = "audio"


@dataclass(frozen=True)
class Row:
    """One live request as TorchServe passes it in a call: its id, its fields and its headers."""

    id: str
    fields: Mapping[str, object]
    headers: Mapping[str, object]


def read_request(row: Row) -> tuple[bytes, dict[str, str]]:
    """Return the audio file's bytes and the options' words, `{"steps": "16"}`, in lower case.

    Raises `CallerError`: `not_audio` where no bytes of a file came, `bad_option` where an option is not
    text or was given twice with different values.
    """
    form = BODY not in row.fields
    audio = row.fields.get(AUDIO if form else BODY)
    if not isinstance(audio, bytes | bytearray):
        raise CallerError(
            "not_audio",
            "the request carries no audio: send the file as the body with Content-Type "
            "application/octet-stream, or as the field 'audio' of a multipart form",
        )
    options: dict[str, str] = {}
    for name, value in row.headers.items():
        if isinstance(value, str) and name.lower().startswith(OPTION_PREFIX):
            _put(options, name[len(OPTION_PREFIX) :].lower(), value.strip())
    if form:
        for name, value in row.fields.items():
            if name != AUDIO:
                _put(options, name.lower(), _text(name, value))
    return bytes(audio), options


def _put(options: dict[str, str], name: str, word: str) -> None:
    if options.setdefault(name, word) != word:
        raise CallerError("bad_option", f"the option {name!r} was given twice with different values")


def _text(name: str, value: object) -> str:
    if isinstance(value, str):
        return value.strip()
    try:
        if isinstance(value, bytes | bytearray):
            return value.decode("utf-8").strip()
    except UnicodeDecodeError:
        pass
    raise CallerError("bad_option", f"the form field {name!r} must be UTF-8 text")
