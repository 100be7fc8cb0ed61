"""The tables of docs/benchmarks.md and docs/presets.md, from the rows in `results/`.

    python -m benchmarks.table

A table stands between `<!-- table NAME -->` and `<!-- end of table -->`; what is around them is written by hand. Of
rows that measured the same the last one counts.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import click

from benchmarks.markdown import NONE, NOT_MEASURED, Column, latest, spread, table
from benchmarks.rows import RESULTS, Row, read
from benchmarks.schedule_table import schedule_table
from benchmarks.variants import BASELINE
from voicestyle.archive import ROOT

PAGES = (ROOT / "docs" / "benchmarks.md", ROOT / "docs" / "presets.md")
PLACE = re.compile(r"(<!-- table (.*?) -->\n).*?(<!-- end of table -->)", re.DOTALL)


@click.command()
@click.option(
    "--page",
    "pages",
    multiple=True,
    default=PAGES,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
)
@click.option("--results", default=RESULTS, type=click.Path(path_type=Path))
def main(pages: Sequence[Path], results: Path) -> None:
    """Put the tables of all results into the pages."""
    for page in pages:
        page.write_text(rendered(page.read_text(encoding="utf-8"), results), encoding="utf-8")


def rendered(text: str, results: Path) -> str:
    """The page with its tables as the results have them. Raises KeyError for a table that nobody knows."""
    return PLACE.sub(lambda place: f"{place[1]}{TABLES[place[2]](results)}\n{place[3]}", text)


def step_table(subject: str) -> Callable[[Path], str]:
    """The renderer of a subject's steps."""

    def render(results: Path) -> str:
        rows = [row for row in read(results / "step.jsonl") if row["subject"] == subject]
        published = {_where(row): row for row in rows if row["variant"] == BASELINE and not row["error"]}
        return table(
            {
                "variant": lambda row: row["variant"],
                "batch": lambda row: str(row["batch"]),
                "ms a step": lambda row: spread(row["ms_per_step"]),
                "ms a step and face": lambda row: f"{row['ms_per_step_and_face']['median']:.4g}",
                "times as fast as published": lambda row: _times(published[_where(row)], row),
                "faces a minute": lambda row: f"{row['faces_per_minute']:.3g}",
                "memory, MiB": lambda row: str(row["peak_cuda_mib"] or row["peak_resident_mib"]),
                "GFLOP/s": lambda row: f"{row['gflops']:.3g}",
                "of a matrix product": lambda row: f"{row['share_of_matmul'][row['dtype']]:.0%} of {row['dtype']}",
                "similarity (difference)": lambda row: _similarity(row["quality"]),
                "PSNR, dB": lambda row: _psnr(row["quality"]),
            },
            latest(rows, ("machine.device_name", "machine.threads", "variant", "batch")),
        )

    return render


def serving_table(results: Path) -> str:
    """Modes at each share of the capacity."""
    return table(
        {
            "load": lambda row: f"{row['share']:.0%}",
            "mode": lambda row: row["mode"],
            "faces a minute": lambda row: spread(row["faces_per_minute"]),
            "to the first step, p50, s": lambda row: spread(row["first_step_p50"]),
            "to the first step, p99, s": lambda row: spread(row["first_step_p99"]),
            "to the answer, p50, s": lambda row: spread(row["answer_p50"]),
            "to the answer, p99, s": lambda row: spread(row["answer_p99"]),
            "faces at once, mean": lambda row: f"{row['mean_batch']:g}",
            "requests": lambda row: str(row["requests"]),
            "errors": lambda row: str(sum(row["errors"].values())),
        },
        latest(read(results / "serving.jsonl"), ("machine.device_name", "share", "mode", "steps", "size")),
    )


def clients_table(results: Path) -> str:
    """One client and several."""
    return table(
        {
            "clients": lambda row: str(row["clients"]),
            "faces a minute": lambda row: spread(row["faces_per_minute"]),
            "answer, s": lambda row: spread(row["answer_seconds"]),
            "steps": lambda row: str(row["steps"]),
            "errors": lambda row: str(row["errors"]),
        },
        latest(read(results / "clients.jsonl"), ("machine.device_name", "clients", "steps", "size")),
    )


def front_end_table(results: Path) -> str:
    """The whole front end, its stages and the plain loops."""
    return table(
        {
            "": lambda row: row["variant"],
            "ms": lambda row: spread(row["milliseconds"]),
            "best, ms": lambda row: f"{row['best_milliseconds']:.3g}",
            "times as fast as frame by frame": lambda row: spread(row["times_as_fast_as_plain"]),
            "largest difference to it": lambda row: f"{row['max_difference_to_plain']:.1g}",
        },
        latest(read(results / "front_end.jsonl"), ("machine.device_name", "variant", "audio_seconds")),
    )


def cold_start_table(results: Path) -> str:
    """The last start that was measured, stage by stage."""
    rows = read(results / "cold_start.jsonl")[-1:]
    stages = [
        {"stage": name, "seconds": seconds, "machine": row["machine"]}
        for row in rows
        for name, seconds in (
            *row["stages"].items(),
            ("all of these", row["stages_together"]),
            *((f"on TorchServe: {name}", seconds) for name, seconds in row["torchserve"].items()),
        )
    ]
    return table({"stage": lambda row: row["stage"], "s": lambda row: spread(row["seconds"])}, stages)


def profile_tables(results: Path) -> str:
    """A table for each profiled variant."""
    rows = latest(read(results / "profile.jsonl"), ("machine.device_name", "subject", "variant", "batch"))
    parts: list[str] = []
    for row in rows:
        total = row["ms_per_step"]
        lines = [{**each, "machine": row["machine"]} for each in row["operations"]]
        lines.append({"name": "others", "calls": None, "ms": row["others_ms"], "machine": row["machine"]})
        columns: Mapping[str, Column] = {
            "operation": lambda line: f"`{line['name']}`" if line["calls"] else line["name"],
            "calls a step": lambda line: f"{line['calls']:g}" if line["calls"] else NONE,
            "ms": lambda line: f"{line['ms']:.3g}",
            "share": lambda line, total=total: f"{line['ms'] / total:.0%}",
        }
        title = f"**{row['subject']}, {row['variant']}, batch {row['batch']}** ({total:.4g} ms a step when profiled)"
        parts.append(f"{title}\n\n{table(columns, lines)}")
    return "\n\n".join(parts) or NOT_MEASURED


def _where(row: Row) -> tuple[str, int]:
    return row["machine"]["device_name"], row["machine"]["threads"]


def _times(slow: Row, fast: Row) -> str:
    return f"{slow['ms_per_step_and_face']['median'] / fast['ms_per_step_and_face']['median']:.2g}"


def _similarity(quality: Mapping[str, float] | None) -> str:
    return NONE if quality is None else f"{quality['similarity']:.4f} ({quality['largest_difference']:+.4f})"


def _psnr(quality: Mapping[str, float | None] | None) -> str:
    if quality is None:
        return NONE
    worst = quality["worst_psnr_db"]
    return "equal" if worst is None else f"{worst:.1f}"


TABLES: Mapping[str, Callable[[Path], str]] = {
    "step full": step_table("full"),
    "step demo": step_table("demo"),
    "profile": profile_tables,
    "serving": serving_table,
    "clients": clients_table,
    "cold start": cold_start_table,
    "front end": front_end_table,
    "schedules": schedule_table("comparison"),
    "schedule search": schedule_table("search"),
}

if __name__ == "__main__":
    main()
