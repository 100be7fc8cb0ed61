"""From a row that TorchServe hands over to audio bytes and option words.

A row holds a raw body, one entry per field of a multipart form, or the inputs of a gRPC call; header names keep
the client's spelling. What the words mean is decided by `voicestyle.options.Options.parse`, the one parser there is.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, cast

from voicestyle.errors import InputError
from voicestyle.worker.field_limit import MOST_FIELDS, TOO_MANY

Protocol = Literal["http", "grpc"]

OPTION_PREFIX: Final = "x-voicestyle-"
BODY: Final = "body"
AUDIO: Final = "audio"
JSON_TYPE: Final = "application/json"
HOW: Final = (
    "send the file as the body with Content-Type application/octet-stream, as the field 'audio' of a multipart form, "
    "as base64 under the key 'audio' of a JSON object, or as the input 'audio' of a gRPC call"
)


@dataclass(frozen=True)
class Row:
    """One live request as TorchServe passes it in a call: its id, its fields and its headers."""

    id: str
    fields: Mapping[str, object]
    headers: Mapping[str, object]

    @property
    def protocol(self) -> Protocol:
        """How it came."""
        # A header of HTTP is text. A gRPC row has none, only a mapping for each of its inputs, whatever their names.
        return "http" if any(isinstance(value, str) for value in self.headers.values()) else "grpc"


def read_request(row: Row, max_bytes: int | None = None) -> tuple[bytes, dict[str, str]]:
    """Return the audio file's bytes and the options' words, `{"steps": "16"}`, in lower case.

    Raises `InputError`: `not_audio` where no bytes of a file came, `too_large` for more than `max_bytes` of them,
    `bad_option` where an option is not text or was given twice with different values.
    """
    fields = row.fields
    if TOO_MANY in fields:
        raise InputError("bad_option", f"a request may have at most {MOST_FIELDS} fields, the audio included")
    if BODY in fields and _content_type(row) == JSON_TYPE:
        fields = _json_fields(fields[BODY])
    form = list(fields) != [BODY]
    audio = fields.get(AUDIO if form else BODY)
    if not isinstance(audio, bytes | bytearray):
        raise InputError("not_audio", f"the request carries no audio: {HOW}")
    if max_bytes is not None and len(audio) > max_bytes:
        raise InputError("too_large", f"the audio may have at most {max_bytes} bytes, got {len(audio)}")
    options: dict[str, str] = {}
    for name, value in row.headers.items():
        if isinstance(value, str) and name.lower().startswith(OPTION_PREFIX):
            _put(options, name[len(OPTION_PREFIX) :].lower(), value.strip())
    if form:
        for name, value in fields.items():
            if name != AUDIO:
                _put(options, name.lower(), _text(name, value))
    return bytes(audio), options


def _content_type(row: Row) -> str:
    for name, value in row.headers.items():
        if name.lower() == "content-type" and isinstance(value, str):
            return value.partition(";")[0].strip().lower()
    return ""


def _json_fields(body: object) -> Mapping[str, object]:
    """The fields of a JSON object, its audio decoded."""
    try:
        # TorchServe hands over bytes, but a dict where it was told to decode bodies.
        parsed = body if isinstance(body, dict) else json.loads(cast(bytes, body), object_pairs_hook=_once)
        if not isinstance(parsed, dict):
            raise TypeError
    except (ValueError, TypeError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError("not_audio", f"the body is not the JSON object that its Content-Type says: {HOW}") from None
    fields = cast(dict[str, object], parsed)
    audio = fields.get(AUDIO)
    if isinstance(audio, str):
        try:
            fields[AUDIO] = base64.b64decode(audio, validate=True)
        except (binascii.Error, ValueError):
            raise InputError("not_audio", "the JSON key 'audio' must hold the file in base64") from None
    return fields


def _once(pairs: Iterable[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in pairs:
        if name in found:
            raise InputError("bad_option", f"the JSON key {name[:40]!r} was given twice")
        found[name] = value
    return found


def _put(options: dict[str, str], name: str, word: str) -> None:
    if options.setdefault(name, word) != word:
        raise InputError("bad_option", f"the option {name[:40]!r} was given twice with different values")


def _text(name: str, value: object) -> str:
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    try:
        if isinstance(value, bytes | bytearray):
            return value.decode("utf-8").strip()
    except UnicodeDecodeError:
        pass
    raise InputError("bad_option", f"the option {name[:40]!r} must be UTF-8 text or a whole number")
