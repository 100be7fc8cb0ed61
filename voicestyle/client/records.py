"""Typed values out of a JSON object from elsewhere."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any, cast

from voicestyle.client.errors import ServiceFailed


class Record:
    """A JSON object; its methods take out a value by key. They raise ServiceFailed, `malformed`, for any other type."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    @classmethod
    def parse(cls, text: bytes) -> Record | None:
        """The object that `text` holds; None if it holds anything else."""
        try:
            values = json.loads(text)
        except ValueError:  # of JSON and of UTF-8
            return None
        return cls(cast("dict[str, Any]", values)) if isinstance(values, dict) else None

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def has_texts(self, *keys: str) -> bool:
        """Whether there is a string under each of `keys`."""
        return all(isinstance(self._values.get(key), str) for key in keys)

    def text(self, key: str) -> str:
        """A string."""
        value = self._values.get(key)
        if not isinstance(value, str):
            raise self._malformed(key, "a string")
        return value

    def whole(self, key: str) -> int:
        """An integer."""
        return self._whole(key, self._values.get(key))

    def number(self, key: str) -> float:
        """An integer or a fraction."""
        return self._number(key, self._values.get(key))

    def numbers(self, key: str) -> tuple[float, ...]:
        """A list of numbers."""
        return tuple(self._number(key, value) for value in self._list(key))

    def wholes(self, key: str) -> tuple[int, ...]:
        """A list of integers."""
        return tuple(self._whole(key, value) for value in self._list(key))

    def named_numbers(self, key: str) -> dict[str, float]:
        """An object of numbers."""
        record = self.record(key)
        if record is None:
            raise self._malformed(key, "an object of numbers")
        return {name: record.number(name) for name in record._values}

    def decoded(self, key: str) -> bytes:
        """The bytes that a string holds in base64."""
        try:
            return base64.b64decode(self.text(key), validate=True)
        except ValueError as error:  # of characters beyond ASCII, too
            raise self._malformed(key, "base64") from error

    def record(self, key: str) -> Record | None:
        """An object; None if there is none."""
        value = self._values.get(key)
        return Record(cast("dict[str, Any]", value)) if isinstance(value, dict) else None

    def records(self, key: str) -> tuple[Record, ...]:
        """A list of objects; empty where the key is missing."""
        values = self._list(key) if key in self else []
        if not all(isinstance(value, dict) for value in values):
            raise self._malformed(key, "a list of objects")
        return tuple(Record(value) for value in values)

    def _list(self, key: str) -> list[Any]:
        value = self._values.get(key)
        if not isinstance(value, list):
            raise self._malformed(key, "a list")
        return cast("list[Any]", value)

    def _whole(self, key: str, value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise self._malformed(key, "integral")
        return value

    def _number(self, key: str, value: object) -> float:
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise self._malformed(key, "numeric")
        try:
            return float(value)
        except OverflowError as error:
            raise self._malformed(key, "a number below 1e308") from error

    def _malformed(self, key: str, rule: str) -> ServiceFailed:
        kind = type(self._values[key]).__name__ if key in self else "nothing"
        return ServiceFailed("malformed", f"{key!r} of the service's answer must be {rule}, got {kind}")
