"""From a request's fields and headers to its audio and its options as text.

A request has a raw body, one field for each part of a multipart form, or the inputs of a gRPC call. What the texts
mean is decided by `voicestyle.options.Options.parse`, the only parser of options.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, cast

from voicestyle.errors import InputError
from voicestyle.options import MAX_QUOTED, bad_option

Protocol = Literal["http", "grpc"]

MAX_FIELDS: Final = 32  # the audio, the options, and some that are rejected by name
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
    """A live request as it was received. fields: None for more than `MAX_FIELDS`. Header names are as the client's."""

    id: str
    protocol: Protocol
    fields: Mapping[str, object] | None
    headers: Mapping[str, str]


def parse_request(row: Row, max_bytes: int | None = None) -> tuple[bytes, dict[str, str]]:
    """Return the bytes of the audio file, and the options as text, `{"steps": "16"}`, with names in lower case.

    Raises InputError: `not_audio` without the bytes of a file, `too_large` for more than `max_bytes` of them,
    `bad_option` where an option is not text or was given twice with different values.
    """
    fields = row.fields
    if fields is None:
        raise bad_option(f"a request may have at most {MAX_FIELDS} fields, the audio included")
    if BODY in fields and _content_type(row) == JSON_TYPE:
        fields = _json_fields(fields[BODY])
    is_form = list(fields) != [BODY]
    audio = fields.get(AUDIO if is_form else BODY)
    if not isinstance(audio, bytes | bytearray):
        raise InputError("not_audio", f"the request contains no audio: {HOW}")
    if max_bytes is not None and len(audio) > max_bytes:
        raise InputError("too_large", f"the audio may have at most {max_bytes} bytes, got {len(audio)}")
    options: dict[str, str] = {}
    for name, value in row.headers.items():
        if name.lower().startswith(OPTION_PREFIX):
            _put(options, name[len(OPTION_PREFIX) :].lower(), value.strip())
    if is_form:
        for name, value in fields.items():
            if name != AUDIO:
                _put(options, name.lower(), _text(name, value))
    return bytes(audio), options


def _content_type(row: Row) -> str:
    for name, value in row.headers.items():
        if name.lower() == "content-type":
            return value.partition(";")[0].strip().lower()
    return ""


def _json_fields(body: object) -> Mapping[str, object]:
    """The fields of a JSON object, with its audio decoded."""
    try:
        # TorchServe passes bytes, but a dict if it was configured to decode bodies.
        parsed = body if isinstance(body, dict) else json.loads(cast(bytes, body), object_pairs_hook=_unique_keys)
        if not isinstance(parsed, dict):
            raise TypeError
    except InputError:
        raise
    except (ValueError, TypeError, RecursionError):
        raise InputError("not_audio", f"the Content-Type says JSON, but the body is no JSON object: {HOW}") from None
    fields = cast(dict[str, object], parsed)
    audio = fields.get(AUDIO)
    if isinstance(audio, str):
        try:
            fields[AUDIO] = base64.b64decode(audio, validate=True)
        except (binascii.Error, ValueError):
            raise InputError("not_audio", "the JSON key 'audio' must contain the file in base64") from None
    return fields


def _unique_keys(pairs: Iterable[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in pairs:
        if name in found:
            raise bad_option(f"the JSON key {name[:MAX_QUOTED]!r} was given twice")
        found[name] = value
    return found


def _put(options: dict[str, str], name: str, text: str) -> None:
    if options.setdefault(name, text) != text:
        raise bad_option(f"the option {name[:MAX_QUOTED]!r} was given twice with different values")


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
    raise bad_option(f"the option {name[:MAX_QUOTED]!r} must be UTF-8 text or an integer")
