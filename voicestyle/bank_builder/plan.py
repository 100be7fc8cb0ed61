"""The plan of a bank build, `plan.json`: options, files by content, and what belongs to which shard.

It is written once, before any work. A later run on the same folder must have the same plan; then the shards that it
finds are those that it would make. The plan holds no path of the machine and no time, so that it is the same wherever
the photographs are stored.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from voicestyle.bank_builder.errors import BankError

FORMAT = 1
NAMED_DIFFERENCES = 6  # that a message lists

Setting = str | int | float | bool | None


class Source(Struct, frozen=True, omit_defaults=True):
    """A photograph by its content. unreadable: why the file could not be read; then it has no size and no sha256."""

    key: str
    size: int = 0
    sha256: str = ""
    unreadable: str = ""


class Video(Struct, frozen=True):
    """A video, `NAME/1.6/VIDEO`, by its frames: their number and one sha256 of all their names and contents."""

    key: str
    frames: int
    sha256: str


class Group(Struct, frozen=True, omit_defaults=True):
    """Photographs that are judged together, and the videos that choose among them; one photograph if there are none."""

    photographs: tuple[Source, ...]
    videos: tuple[Video, ...] = ()


class Plan(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """settings: all that the bank's bytes depend on besides the photographs. shard_size: photographs of a shard."""

    settings: Mapping[str, Setting]
    shard_size: Annotated[int, Meta(ge=1)]
    groups: tuple[Group, ...]
    format: int = FORMAT

    def to_json(self) -> bytes:
        """The content of `plan.json`; the same plan gives the same bytes."""
        return msgspec.json.format(msgspec.json.encode(self, order="deterministic"), indent=1) + b"\n"

    @classmethod
    def from_json(cls, content: bytes, name: str) -> "Plan":
        """Read the content of the file `name`. Raises BankError for another format."""
        try:
            plan = msgspec.json.decode(content, type=cls)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BankError(f"{name} must be the plan of a bank build: {error}") from error
        if plan.format != FORMAT:
            raise BankError(f"{name} must have format {FORMAT}, got {plan.format}")
        return plan

    @property
    def digest(self) -> str:
        """The sha256 of `plan.json`; every shard holds it."""
        return hashlib.sha256(self.to_json()).hexdigest()

    @property
    def sources_digest(self) -> str:
        """One sha256 of all photographs and videos, whatever the shards."""
        return hashlib.sha256(msgspec.json.encode(self.groups, order="deterministic")).hexdigest()

    def photographs(self) -> Iterator[Source]:
        """All photographs, in the order of the groups."""
        for group in self.groups:
            yield from group.photographs

    def videos(self) -> Iterator[Video]:
        """All videos, in the order of the groups."""
        for group in self.groups:
            yield from group.videos

    def shards(self) -> list[tuple[Group, ...]]:
        """Consecutive groups; a shard ends with the group that brings it to `shard_size` photographs."""
        shards: list[tuple[Group, ...]] = []
        open_shard: list[Group] = []
        size = 0
        for group in self.groups:
            open_shard.append(group)
            size += len(group.photographs)
            if size >= self.shard_size:
                shards.append(tuple(open_shard))
                open_shard, size = [], 0
        if open_shard:
            shards.append(tuple(open_shard))
        return shards

    def differences(self, now: "Plan") -> list[str]:
        """How `now` differs from this plan, one phrase for each difference."""
        found = [
            f"{name} is {self.settings.get(name)} there and {now.settings.get(name)} now"
            for name in sorted({*self.settings, *now.settings})
            if self.settings.get(name) != now.settings.get(name)
        ]
        if self.shard_size != now.shard_size:
            found.append(f"the shard size is {self.shard_size} there and {now.shard_size} now")
        found += _changes("photograph", list(self.photographs()), list(now.photographs()))
        found += _changes("video", list(self.videos()), list(now.videos()))
        if not found and self.groups != now.groups:
            found.append("videos choose among other photographs")
        return found

    def check_same(self, now: "Plan", name: str) -> None:
        """Raise BankError with the differences unless `now` is this plan, which was read from the file `name`."""
        found = self.differences(now)
        if not found:
            return
        listed = "; ".join(found[:NAMED_DIFFERENCES])
        more = f"; and {len(found) - NAMED_DIFFERENCES} more" if len(found) > NAMED_DIFFERENCES else ""
        raise BankError(
            f"a build continues only with the options and files of {name}, got others: {listed}{more}. "
            "Use another folder, or --restart to discard that build"
        )


def _changes(
    what: str, before: Sequence[Source] | Sequence[Video], now: Sequence[Source] | Sequence[Video]
) -> list[str]:
    old, new = {item.key: item for item in before}, {item.key: item for item in now}
    sets = {
        "added": [key for key in new if key not in old],
        "missing": [key for key in old if key not in new],
        "changed": [key for key in new if key in old and new[key] != old[key]],
    }
    return [
        f"{len(keys)} {what}{'s' if len(keys) > 1 else ''} {change}, the first is {keys[0]!r}"
        for change, keys in sets.items()
        if keys
    ]
