"""The options of a request: the one table that server, client, command line and documentation take them from.

Imports the standard library alone, so that the client can use it without torch. To add an option, see
docs/architecture.md.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, Final, TypedDict

from voicestyle.error_codes import InputError
from voicestyle.presets import DEFAULT, PRESETS

MAX_SEED: Final = 2**63 - 1
MAX_QUOTED: Final = 40  # characters of received text that an error message repeats


@dataclass(frozen=True)
class Option:
    """One option: an integer from `low` to `high` where these are given, or one of `choices`.

    default: its value where the request gives none, in words where the bundle decides. help: one line. local: whether
    it shapes the image; such an option also exists without a server, and responses repeat its value.
    """

    name: str
    help: str
    default: str
    low: int | None = None
    high: int | None = None
    choices: tuple[str, ...] = ()
    local: bool = True

    @property
    def type(self) -> type[int] | type[str]:
        """The Python type of its values."""
        return str if self.choices else int

    @property
    def rule(self) -> str:
        """What a value must be."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        return f"at least {self.low}" if self.high is None else f"{self.low} to {self.high}"

    def parse(self, text: str) -> int | str:
        """The value that `text` stands for. Raises InputError (bad_option) for text that should be an integer."""
        if self.choices:
            return text.lower()
        if not (text.isascii() and text.removeprefix("-").isdigit() and len(text) <= 20):
            raise bad_option(f"{self.name} must be an integer, got {text[:MAX_QUOTED]!r}")
        return int(text)

    def check(self, value: Any) -> None:
        """Raise InputError (bad_option) for a value of another type or out of range."""
        if self.type is not type(value):
            raise bad_option(f"{self.name} must be of type {self.type.__name__}, got {type(value).__name__}")
        too_low = self.low is not None and value < self.low
        too_high = self.high is not None and value > self.high
        if too_low or too_high or (self.choices and value not in self.choices):
            shown = repr(value[:MAX_QUOTED]) if self.choices else value
            raise bad_option(f"{self.name} must be {self.rule}, got {shown}")


OPTIONS: Final[Mapping[str, Option]] = MappingProxyType(
    {
        option.name: option
        for option in (
            Option(
                "steps",
                "number of optimisation steps; 0 with the preset instant alone",
                "the preset's",
                low=0,
            ),
            Option(
                "preset",
                "the bundle's schedule; fast, with a quarter of its steps; or instant, by a mapper without steps, "
                "where the bundle has one",
                DEFAULT,
                choices=tuple(PRESETS),
            ),
            Option("seed", "seed of the random noise", "the bundle's", low=0, high=MAX_SEED),
            Option("size", "width and height of the image in pixels, one of the bundle's sizes", "the bundle's", low=1),
            Option("format", "file format of the image", "png", choices=("png", "jpeg", "webp")),
            Option(
                "output",
                "the image alone, or JSON with the image and all that is known about it",
                "image",
                choices=("image", "json"),
                local=False,
            ),
            Option(
                "previews",
                "number of small JPEG images sent during the optimisation, fewer than the steps",
                "0",
                low=0,
                local=False,
            ),
        )
    }
)
FORMATS: Final = OPTIONS["format"].choices
OUTPUTS: Final = OPTIONS["output"].choices


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options that a request gives; None leaves the choice to the bundle. `OPTIONS` says what each one means.

    Raises InputError (bad_option) for a value of another type or out of range.
    """

    steps: int | None = None
    preset: str | None = None
    seed: int | None = None
    size: int | None = None
    format: str | None = None
    output: str | None = None
    previews: int | None = None

    def __post_init__(self) -> None:
        for name, value in self.given().items():
            OPTIONS[name].check(value)

    @classmethod
    def parse(cls, values: Mapping[str, str]) -> Options:
        """Options from text, such as headers or form fields; names in upper or lower case.

        Raises InputError (bad_option) for an unknown name (the message gives the nearest known one), a name given
        twice, or a value that breaks its rule.
        """
        parsed: dict[str, Any] = {}
        for given, text in values.items():
            name = given.lower()
            if name not in OPTIONS:
                known = ", ".join(OPTIONS)
                raise bad_option(
                    f"unknown option {given[:MAX_QUOTED]!r}; the options are {known}; "
                    f"the nearest is {nearest(name[:MAX_QUOTED], OPTIONS)!r}"
                )
            if name in parsed:
                raise bad_option(f"option {name!r} was given twice")
            parsed[name] = OPTIONS[name].parse(text.strip())
        return cls(**parsed)

    def given(self) -> dict[str, int | str]:
        """The options that are not None, by name."""
        return {field.name: value for field in fields(self) if (value := getattr(self, field.name)) is not None}

    def as_text(self) -> dict[str, str]:
        """The options that are not None as text, which `parse` reads."""
        return {name: str(value) for name, value in self.given().items()}


class OptionValues(TypedDict, total=False):
    """The keyword arguments of `Options`, for functions that pass them on."""

    steps: int | None
    preset: str | None
    seed: int | None
    size: int | None
    format: str | None
    previews: int | None


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The options of a request with the defaults of bundle, preset and service filled in."""

    steps: int
    preset: str = DEFAULT
    seed: int
    size: int
    format: str = "png"
    output: str = "image"
    previews: int = 0


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that looks most like `name`, for an error message."""
    return difflib.get_close_matches(name, known, n=1, cutoff=0)[0]


def bad_option(message: str) -> InputError:
    """The error for an option that cannot be used."""
    return InputError("bad_option", message)
