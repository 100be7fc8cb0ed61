"""Merge the shards of a build into the bank: `latents.pt` and `bank.json`.

The bytes depend on the plan's settings and files alone: not on the shards, the workers or interruptions.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Annotated

import msgspec
import numpy as np
import torch
from msgspec import Meta, Struct
from numpy.typing import NDArray

from voicestyle.bank_builder.errors import BankError
from voicestyle.bank_builder.folder import BankFolder
from voicestyle.bank_builder.plan import Plan, Setting
from voicestyle.bank_builder.shard import Shard
from voicestyle.bundle import sha256
from voicestyle.whole_files import whole_file, write_whole

FORMAT = 1
Count = Annotated[int, Meta(ge=0)]


class Tally(Struct, kw_only=True):
    """How many photographs or videos there were, how many were kept, and why not the others.

    unchosen: photographs that passed the gates, but that no video chose.
    """

    total: Count = 0
    kept: Count = 0
    unchosen: Count = 0
    rejected: dict[str, int] = msgspec.field(default_factory=dict)

    def add(self, reason: str | None, kept: bool = True) -> None:
        """Count one more; reason: None if it was not rejected."""
        self.total += 1
        if reason is not None:
            kind = kind_of(reason)
            self.rejected[kind] = self.rejected.get(kind, 0) + 1
        elif kept:
            self.kept += 1
        else:
            self.unchosen += 1


class BankDescription(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`bank.json`: where the latents of `latents.pt` come from.

    loss, detector: the networks that were used. sources: one sha256 of all photographs and videos. latents: the sha256
    of the file. shape: of the latents in it.
    """

    loss: str
    detector: str
    settings: Mapping[str, Setting]
    sources: str
    photographs: Tally
    videos: Tally
    shape: tuple[int, ...]
    latents: str
    format: int = FORMAT

    def to_json(self) -> bytes:
        """The content of `bank.json`; the same description gives the same bytes."""
        return msgspec.json.format(msgspec.json.encode(self, order="deterministic"), indent=2) + b"\n"


def kind_of(reason: str) -> str:
    """A reason without the numbers that were received, so that those of one kind are counted together.

    "yaw +31°, must be within ±25°" becomes "yaw …°, must be within ±25°".
    """
    rule = re.search(r"must .*?(?=, (?:received|got)\b|:|$)", reason)
    if rule is None:
        return _without_numbers(reason)
    return _without_numbers(reason[: rule.start()]) + rule[0] + _without_numbers(reason[rule.end() :])


def _without_numbers(text: str) -> str:
    return re.sub(r"[-+−]?\d+(?:[.,×]\d+)*", "…", text)


def rows_of(shard: Shard) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Keys and latents of a shard: its videos, or without videos its photographs."""
    inverted = {item.key: item.inverted.array() for item in shard.photographs if item.inverted is not None}
    if shard.videos:
        yield from ((video.key, inverted[video.photograph]) for video in shard.videos if video.photograph is not None)
    else:
        yield from inverted.items()


def merge(folder: BankFolder, plan: Plan) -> BankDescription:
    """Write `latents.pt` and `bank.json` from the shards of a finished build.

    Raises BankError if no photograph was kept, if latents differ in shape, and what reading a shard raises.
    """
    rows: dict[str, NDArray[np.float32]] = {}
    photographs, videos = Tally(), Tally()
    for shard in folder.read_shards(plan):
        rows.update(rows_of(shard))
        for item in shard.photographs:
            photographs.add(item.rejected, item.inverted is not None)
        for video in shard.videos:
            videos.add(video.rejected)
    for tally in (photographs, videos):
        tally.rejected = dict(sorted(tally.rejected.items()))
    if not rows:
        reasons = Counter(photographs.rejected).most_common(3)
        listed = "; ".join(f"{count} × {reason}" for reason, count in reasons) or "no video found a photograph"
        raise BankError(f"a bank must have a latent, got none of {photographs.total} photographs: {listed}")
    if len(shapes := sorted({latent.shape for latent in rows.values()})) > 1:
        raise BankError(f"all latents must have one shape, got {shapes}")
    keys = sorted(rows)
    latents = np.stack([rows[key] for key in keys])
    with whole_file(folder.latents) as draft, draft.open("wb") as file:
        # Saved to an open file, because the name of a path would become part of the content.
        torch.save({"latents": torch.from_numpy(latents), "videos": keys}, file)
    description = BankDescription(
        loss=str(plan.settings["loss"]),
        detector=str(plan.settings["detector"]),
        settings=plan.settings,
        sources=plan.sources_digest,
        photographs=photographs,
        videos=videos,
        shape=latents.shape,
        latents=sha256(folder.latents),
    )
    write_whole(folder.bank, description.to_json())
    return description
