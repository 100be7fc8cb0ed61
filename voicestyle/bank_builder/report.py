"""`report.html`: what became of every photograph, as one file that loads nothing from elsewhere.

Rows for filters and order are one JSON list. Pictures and curves are lists of `PAGE` photographs, which the page's
script reads when they are shown, so that thousands of photographs open at once.
"""

import base64
import hashlib
import math
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from voicestyle.bank_builder.errors import BankError
from voicestyle.bank_builder.folder import BankFolder
from voicestyle.bank_builder.merge import BankDescription, kind_of
from voicestyle.bank_builder.plan import Plan
from voicestyle.bank_builder.shard import PhotographResult, Shard
from voicestyle.whole_files import whole_file

ASSETS = Path(__file__).parents[1] / "assets" / "bank"
PAGE = 100  # photographs; report.js has the same number
CURVE_POINTS = 60
GATE = "gates."  # prefix of the settings that are gates

Row = dict[str, Any]


def write_report(folder: BankFolder, plan: Plan, description: BankDescription) -> None:
    """Write the report of a finished build; the same build gives the same bytes.

    Raises BankError if jinja2 is not installed, and what reading a shard raises.
    """
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
        from markupsafe import Markup
    except ImportError as error:
        raise BankError("a report needs the extra photos: pip install 'voicestyle[photos]'") from error
    environment = Environment(loader=FileSystemLoader(ASSETS), autoescape=True, undefined=StrictUndefined)
    rows = [row_of(item) for shard in folder.read_shards(plan) for item in shard.photographs]
    script = (ASSETS / "report.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    reasons = sorted(description.photographs.rejected.items(), key=lambda item: (-item[1], item[0]))
    content = environment.get_template("report.html.j2").stream(
        loss=description.loss,
        detector=description.detector,
        replacement=description.settings.get("replacement"),
        gates=[
            (name.removeprefix(GATE).replace("_", " "), "of the detector" if value is None else value)
            for name, value in sorted(description.settings.items())
            if name.startswith(GATE)
        ],
        settings=[(name, "–" if value is None else value) for name, value in sorted(description.settings.items())],
        photographs=description.photographs,
        videos=description.videos,
        reasons=reasons,
        most_frequent=max(description.photographs.rejected.values(), default=1),
        rejected_videos=[
            (video.key, video.rejected)
            for shard in folder.read_shards(plan)
            for video in shard.videos
            if video.rejected is not None
        ],
        shape=description.shape,
        latents=description.latents,
        median_psnr=_median(rows, "psnr"),
        median_identity=_median(rows, "identity"),
        rows=rows,
        pages=_pages(folder.read_shards(plan)),
        # Both are files of this package, not data.
        style=Markup((ASSETS / "report.css").read_text(encoding="utf-8")),  # noqa: S704
        script=Markup(script),  # noqa: S704
        script_hash=f"sha256-{digest}",
    )
    content.enable_buffering(64)
    with whole_file(folder.report) as draft, draft.open("w", encoding="utf-8") as file:
        file.writelines(content)


def row_of(item: PhotographResult) -> Row:
    """What filters and orders need of a photograph."""
    inverted = item.inverted
    return {
        "key": item.key,
        "state": "rejected" if item.rejected is not None else "unchosen" if inverted is None else "kept",
        "reason": item.rejected,
        "kind": None if item.rejected is None else kind_of(item.rejected),
        "psnr": None if inverted is None else finite(inverted.psnr, 2),
        "identity": None if inverted is None else finite(inverted.identity, 4),
    }


def details_of(item: PhotographResult) -> Row:
    """What the card of a photograph shows besides its row."""
    inverted = item.inverted
    return {
        "figures": {name: finite(value, 2) for name, value in item.figures.items()},
        "aligned": _base64(item.aligned),
        "inversion": None if inverted is None else _base64(inverted.image),
        "losses": None if inverted is None else {name: curve(values) for name, values in inverted.losses.items()},
        "chosen_by": item.chosen_by,
    }


def curve(values: Sequence[float]) -> list[float | None]:
    """At most `CURVE_POINTS` of the values, evenly spaced, with the first and the last one."""
    count = min(len(values), CURVE_POINTS)
    places = [round(i * (len(values) - 1) / max(count - 1, 1)) for i in range(count)]
    return [None if not math.isfinite(values[place]) else float(f"{values[place]:.4g}") for place in places]


def finite(value: float | None, digits: int) -> float | None:
    """A rounded number; None for NaN and infinity, which JSON does not have."""
    return None if value is None or not math.isfinite(value) else round(value, digits)


def _pages(shards: Iterator[Shard]) -> Iterator[list[Row]]:
    page: list[Row] = []
    for shard in shards:
        for item in shard.photographs:
            page.append(details_of(item))
            if len(page) == PAGE:
                yield page
                page = []
    if page:
        yield page


def _base64(content: bytes | None) -> str | None:
    return None if content is None else base64.b64encode(content).decode()


def _median(rows: Sequence[Row], name: str) -> float | None:
    values = [row[name] for row in rows if row[name] is not None]
    return statistics.median(values) if values else None
