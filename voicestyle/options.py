"""What a request may ask for: one frozen dataclass that checks itself, and one parser of its textual form."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields

from voicestyle.errors import CallerError

MAX_SEED = 2**63 - 1


@dataclass(frozen=True)
class Options:
    """A request's options; None leaves the choice to the bundle.

    steps: optimisation steps. seed: draws the noise. size: pixels a side of the answer.

    Raises:
        CallerError: bad_option, for a value out of range.
    """

    steps: int | None = None
    seed: int | None = None
    size: int | None = None

    def __post_init__(self) -> None:
        _check_range("steps", self.steps, 1, None)
        _check_range("seed", self.seed, 0, MAX_SEED)
        _check_range("size", self.size, 1, None)

    @classmethod
    def parse(cls, values: Mapping[str, str]) -> "Options":
        """Options from text, such as headers or form fields; names in any case.

        Raises:
            CallerError: bad_option, for an unknown name (with the nearest known one), one given twice,
                or a value that is no whole number.
        """
        names = [field.name for field in fields(cls)]
        parsed: dict[str, int] = {}
        for given, text in values.items():
            name = given.lower()
            if name not in names:
                nearest = difflib.get_close_matches(name, names, n=1, cutoff=0)[0]
                raise bad_option(f"unknown option {given!r}; the options are {', '.join(names)}; nearest: {nearest!r}")
            if name in parsed:
                raise bad_option(f"option {name!r} was given twice")
            digits = text.strip()
            if not (digits.isascii() and digits.removeprefix("-").isdigit() and len(digits) <= 20):
                raise bad_option(f"{name} must be a whole number, got {text[:40]!r}")
            parsed[name] = int(digits)
        return cls(**parsed)


@dataclass(frozen=True)
class Settings:
    """Options with nothing left open."""

    steps: int
    seed: int
    size: int


def bad_option(message: str) -> CallerError:
    """The error for an option that cannot be used."""
    return CallerError("bad_option", message, 400)


def _check_range(name: str, value: int | None, low: int, high: int | None) -> None:
    if value is None:
        return
    if value < low or (high is not None and value > high):
        rule = f"at least {low}" if high is None else f"{low} to {high}"
        raise bad_option(f"{name} must be {rule}, got {value}")
