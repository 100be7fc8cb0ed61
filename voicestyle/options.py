"""What a request may ask for: one table of options, which checks itself, and one parser of its textual form."""

import difflib
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any, Protocol

from voicestyle.errors import CallerError
from voicestyle.presets import DEFAULT, PRESETS

MAX_SEED = 2**63 - 1
FORMATS = ("png", "jpeg", "webp")
OUTPUTS = ("image", "json")
QUOTED = 40  # characters of a caller's text in an error


class _Rule(Protocol):
    def read(self, name: str, text: str) -> object:
        """The value of `text`."""
        ...

    def check(self, name: str, value: Any) -> None:
        """Raise CallerError for a value that breaks the rule."""
        ...


@dataclass(frozen=True)
class _Whole:
    low: int
    high: int | None = None

    def read(self, name: str, text: str) -> int:
        if not (text.isascii() and text.removeprefix("-").isdigit() and len(text) <= 20):
            raise bad_option(f"{name} must be a whole number, got {text[:QUOTED]!r}")
        return int(text)

    def check(self, name: str, value: int) -> None:
        if value < self.low or (self.high is not None and value > self.high):
            rule = f"at least {self.low}" if self.high is None else f"{self.low} to {self.high}"
            raise bad_option(f"{name} must be {rule}, got {value}")


@dataclass(frozen=True)
class _OneOf:
    words: tuple[str, ...]

    def read(self, name: str, text: str) -> str:
        return text.lower()

    def check(self, name: str, value: str) -> None:
        if value not in self.words:
            raise bad_option(f"{name} must be one of {', '.join(self.words)}, got {value[:QUOTED]!r}")


def _option(rule: _Rule) -> Any:
    return field(default=None, metadata={"rule": rule})


@dataclass(frozen=True)
class Options:
    """A request's options; None leaves the choice to the bundle.

    steps: optimisation steps. seed: draws the noise. size: pixels a side of the answer. format: of the image.
    output: the image alone, or JSON with the image and all that is known about it. previews: how many small
    images to send on the way. preset: the name of a schedule of the optimisation; explicit steps stretch it.

    Raises:
        CallerError: bad_option, for a value out of range.
    """

    steps: int | None = _option(_Whole(1))
    seed: int | None = _option(_Whole(0, MAX_SEED))
    size: int | None = _option(_Whole(1))
    format: str | None = _option(_OneOf(FORMATS))
    output: str | None = _option(_OneOf(OUTPUTS))
    previews: int | None = _option(_Whole(0))
    preset: str | None = _option(_OneOf(tuple(PRESETS)))

    def __post_init__(self) -> None:
        for name, rule in _rules().items():
            if (value := getattr(self, name)) is not None:
                rule.check(name, value)

    @classmethod
    def parse(cls, values: Mapping[str, str]) -> "Options":
        """Options from text, such as headers or form fields; names in any case.

        Raises:
            CallerError: bad_option, for an unknown name (with the nearest known one), one given twice, or a value
                that breaks its rule.
        """
        rules = _rules()
        parsed: dict[str, Any] = {}
        for given, text in values.items():
            name = given.lower()
            if name not in rules:
                nearest = difflib.get_close_matches(name[:QUOTED], rules, n=1, cutoff=0)[0]
                known = ", ".join(rules)
                raise bad_option(f"unknown option {given[:QUOTED]!r}; the options are {known}; nearest: {nearest!r}")
            if name in parsed:
                raise bad_option(f"option {name!r} was given twice")
            parsed[name] = rules[name].read(name, text.strip())
        return cls(**parsed)


def _rules() -> dict[str, _Rule]:
    options: tuple[Field[Any], ...] = fields(Options)
    return {option.name: option.metadata["rule"] for option in options}


@dataclass(frozen=True)
class Settings:
    """Options with nothing left open."""

    steps: int
    seed: int
    size: int
    format: str = "png"
    output: str = "image"
    previews: int = 0
    preset: str = DEFAULT


def bad_option(message: str) -> CallerError:
    """The error for an option that cannot be used."""
    return CallerError("bad_option", message, 400)
