"""The tables of docs/benchmarks.md, from the rows in `results/`.

    python -m benchmarks.tables

A table stands between `<!-- table NAME -->` and `<!-- end of table -->`. If several rows measured the same thing, the
last one counts.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import click
from tabulate import tabulate

from benchmarks.estimate_tables import FILE as GPU_ESTIMATE
from benchmarks.estimate_tables import estimate_counts_table, estimate_table
from benchmarks.results import RESULTS, ROOT, Row, read
from benchmarks.variants import BASELINE

PAGE = ROOT / "docs" / "benchmarks.md"
MARKERS = re.compile(r"(<!-- table (.*?) -->\n).*?(<!-- end of table -->)", re.DOTALL)
PROJECTOR = "published projector"  # the baseline of the inversion
NOT_MEASURED = "*Not measured yet.*"
NONE = "–"
GRAPHS = ", CUDA graphs"  # ends the name of a variant

Column = Callable[[Row], object]


@click.command()
@click.option("--page", default=PAGE, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--results", default=RESULTS, type=click.Path(path_type=Path))
def main(page: Path, results: Path) -> None:
    """Write the tables of all results into the page."""
    page.write_text(rendered(page.read_text("utf-8"), results), "utf-8")


def rendered(text: str, results: Path) -> str:
    """The page with its tables replaced. Raises KeyError for an unknown table."""

    def replace(match: re.Match[str]) -> str:
        file, render = TABLES[match[2]]
        return f"{match[1]}{render(read(results / file))}\n{match[3]}"

    return MARKERS.sub(replace, text)


def table(columns: Mapping[str, Column], rows: Sequence[Row]) -> str:
    """A Markdown table with the machines and commits below it; a row with an error shows it in its last column."""
    if not rows:
        return NOT_MEASURED
    cells = [_cells(columns, row) for row in rows]
    text = tabulate(cells, headers=list(columns), tablefmt="github", disable_numparse=True)
    return f"{text}\n\n{_machines(rows)}"


def step_table(rows: Sequence[Row], networks: str) -> str:
    """The steps of one set of networks. A row without quality has that of the last row of the same that has one."""

    def key(row: Row) -> tuple[object, ...]:
        return (*_hardware(row), row["variant"], row["batch"])

    rows = [row for row in rows if row["networks"] == networks]
    qualities = {key(row): row["quality"] for row in rows if row.get("quality")}
    rows = [{**row, "quality": qualities.get(key(row))} for row in _latest(rows, "variant", "batch")]
    published = {_hardware(row): row for row in rows if row["variant"] == BASELINE and not row["error"]}

    def times_faster(row: Row) -> str:
        baseline = published[_hardware(row)]["ms_per_step_and_face"]["median"]
        return f"{baseline / row['ms_per_step_and_face']['median']:.2g}"

    def psnr(row: Row) -> str:
        worst = row["quality"]["worst_psnr_db"]
        return "equal" if worst is None else f"{worst:.1f}"

    return table(
        {
            "variant": lambda row: row["variant"],
            "batch": lambda row: row["batch"],
            "ms a step": lambda row: _spread(row["ms_per_step"]),
            "ms a step and face": lambda row: f"{row['ms_per_step_and_face']['median']:.4g}",
            "times as fast as published": times_faster,
            "faces a minute": lambda row: f"{row['faces_per_minute']:.3g}",
            "memory, MiB": lambda row: row["peak_cuda_mib"] or row["peak_resident_mib"],
            "GFLOP/s": lambda row: f"{row['gflops']:.3g}",
            "of a matrix product": lambda row: f"{row['share_of_matmul'][row['dtype']]:.0%} of {row['dtype']}",
            "similarity (difference)": lambda row: (
                f"{row['quality']['similarity']:.4f} ({row['quality']['largest_difference']:+.4f})"
            ),
            "PSNR, dB": psnr,
        },
        rows,
    )


def gpu_step_table(rows: Sequence[Row]) -> str:
    """The steps of a GPU by batch size. Graphs are compared with the same variant without them."""
    rows = _latest([row for row in rows if row["benchmark"] == "step"], "networks", "variant", "batch")

    def key(row: Row, variant: str) -> tuple[object, ...]:
        return (*_hardware(row), row["networks"], variant, row["batch"])

    measured = {key(row, row["variant"]): row["ms_per_step"]["median"] for row in rows if not row["error"]}

    def times_faster(row: Row) -> str:
        plain = row["variant"].removesuffix(GRAPHS)
        return f"{measured[key(row, plain)] / row['ms_per_step']['median']:.3g}" if plain != row["variant"] else NONE

    return table(
        {
            "networks": lambda row: row["networks"],
            "variant": lambda row: row["variant"],
            "batch": lambda row: row["batch"],
            "ms a step": lambda row: _spread(row["ms_per_step"]),
            "times as fast as without graphs": times_faster,
            "faces a second": lambda row: f"{row['faces_per_minute'] / 60:.3g}",
            "GFLOP/s": lambda row: f"{row['gflops']:.3g}",
            "of a matrix product": lambda row: f"{row['share_of_matmul'][row['dtype']]:.0%} of {row['dtype']}",
            "memory, MiB": lambda row: row["peak_cuda_mib"] or row["peak_resident_mib"],
        },
        rows,
    )


def gpu_pipeline_table(rows: Sequence[Row]) -> str:
    """Whole pipelines: start, a request that joins a full batch, and the soak."""
    rows = [row for row in rows if row["benchmark"] == "gpu pipeline"]
    return table(
        {
            "networks": lambda row: row["networks"],
            "dtype": lambda row: row["dtype"],
            "graphs": lambda row: row["graphs"],
            "slots": lambda row: row["capacity"],
            "start, s": lambda row: f"{row['start_seconds']:.3g}",
            "to the first step, ms": lambda row: _spread(row["ms_to_first_step"]),
            "of it preparation, ms": lambda row: _spread(row["ms_of_preparation"]),
            "soak, s": lambda row: f"{row['soak_seconds']:.0f}",
            "faces": lambda row: row["soak_faces"],
            "faces a second": lambda row: f"{row['faces_per_second']:.3g}",
            "memory, MiB": lambda row: row["peak_cuda_mib"] or row["peak_resident_mib"],
            "growth, MiB": lambda row: f"{row['memory_growth_mib']:g}",
        },
        _latest(rows, "networks", "dtype", "capacity"),
    )


def inversion_table(rows: Sequence[Row]) -> str:
    """The inversion's step at each batch size."""
    rows = _latest(rows, "variant", "batch")
    published = {
        (*_hardware(row), row["batch"]): row["ms_per_step_and_photograph"]["median"]
        for row in rows
        if row["variant"] == PROJECTOR and not row["error"]
    }
    return table(
        {
            "variant": lambda row: row["variant"],
            "batch": lambda row: row["batch"],
            "ms a step and photograph": lambda row: _spread(row["ms_per_step_and_photograph"]),
            "times as fast as published": lambda row: (
                f"{published[*_hardware(row), row['batch']] / row['ms_per_step_and_photograph']['median']:.2g}"
            ),
            "photographs an hour": lambda row: f"{row['photographs_per_hour']:.3g}",
            "memory, MiB": lambda row: row["peak_resident_mib"],
            "loss after 20 steps": lambda row: f"{row['quality']['loss']:.4f}",
        },
        rows,
    )


def clients_table(rows: Sequence[Row]) -> str:
    """Clients that wait for their responses."""
    return table(
        {
            "clients": lambda row: row["clients"],
            "faces a minute": lambda row: _spread(row["faces_per_minute"]),
            "response, s": lambda row: _spread(row["response_seconds"]),
            "steps": lambda row: row["steps"],
            "errors": lambda row: row["errors"],
        },
        _latest(rows, "clients", "steps", "size"),
    )


def instant_table(rows: Sequence[Row]) -> str:
    """The presets `default` and `instant` for one client."""
    return table(
        {
            "preset": lambda row: row["preset"],
            "steps": lambda row: row["steps"],
            "size": lambda row: row["size"],
            "response, s": lambda row: _spread(row["response_seconds"]),
            "faces a minute": lambda row: _spread(row["faces_per_minute"]),
            "times the default's": lambda row: _spread(row["times_default"]),
            "similarity": lambda row: f"{row['similarity']:.4f}",
            "errors": lambda row: row["errors"],
        },
        _latest(rows, "preset", "size"),
    )


def arrivals_table(rows: Sequence[Row]) -> str:
    """The modes at each share of the capacity."""
    return table(
        {
            "load": lambda row: f"{row['share']:.0%}",
            "mode": lambda row: row["mode"],
            "faces a minute": lambda row: _spread(row["faces_per_minute"]),
            "to the first step, p50, s": lambda row: _spread(row["first_step_p50"]),
            "to the first step, p99, s": lambda row: _spread(row["first_step_p99"]),
            "to the response, p50, s": lambda row: _spread(row["response_p50"]),
            "to the response, p99, s": lambda row: _spread(row["response_p99"]),
            "batch, mean": lambda row: f"{row['mean_batch']:g}",
            "requests": lambda row: row["requests"],
            "errors": lambda row: sum(row["errors"].values()),
        },
        _latest(rows, "share", "mode", "steps", "size"),
    )


def cold_start_table(rows: Sequence[Row]) -> str:
    """The stages of the last measured start."""
    stages = [
        {"stage": name, "seconds": seconds, "machine": row["machine"]}
        for row in rows[-1:]
        for name, seconds in (
            *row["stages"].items(),
            ("all of these", row["stages_total"]),
            *((f"on TorchServe: {name}", seconds) for name, seconds in row["torchserve"].items()),
        )
    ]
    return table({"stage": lambda row: row["stage"], "s": lambda row: _spread(row["seconds"])}, stages)


TABLES: Mapping[str, tuple[str, Callable[[Sequence[Row]], str]]] = {
    "step full": ("step.jsonl", partial(step_table, networks="full")),
    "step demo": ("step.jsonl", partial(step_table, networks="demo")),
    "gpu step": ("gpu.jsonl", gpu_step_table),
    "gpu pipeline": ("gpu.jsonl", gpu_pipeline_table),
    "inversion": ("inversion.jsonl", inversion_table),
    "arrivals": ("arrivals.jsonl", arrivals_table),
    "clients": ("clients.jsonl", clients_table),
    "instant": ("instant.jsonl", instant_table),
    "cold start": ("cold_start.jsonl", cold_start_table),
    "gpu counts": (GPU_ESTIMATE, estimate_counts_table),
    "gpu estimate full": (GPU_ESTIMATE, partial(estimate_table, networks="full")),
    "gpu estimate demo": (GPU_ESTIMATE, partial(estimate_table, networks="demo")),
}


def _spread(values: Mapping[str, float]) -> str:
    """Median (minimum–maximum)."""
    low, high = f"{values['min']:.4g}", f"{values['max']:.4g}"
    middle = f"{values['median']:.4g}"
    return middle if low == high else f"{middle} ({low}–{high})"


def _latest(rows: Sequence[Row], *names: str) -> list[Row]:
    """Of rows that agree in hardware and all names, the last one, in the order of the first ones."""
    return list({(*_hardware(row), *(row[name] for name in names)): row for row in rows}.values())


def _hardware(row: Row) -> tuple[str, int]:
    return row["machine"]["device_name"], row["machine"]["threads"]


def _cells(columns: Mapping[str, Column], row: Row) -> list[str]:
    cells: list[str] = []
    for column in columns.values():
        try:
            cells.append(str(column(row)))
        except (KeyError, TypeError):  # not measured
            cells.append(NONE)
    if error := row.get("error"):
        cells[-1] = f"failed: {str(error)[:200]}".replace("|", "/")
    return cells


def _machines(rows: Sequence[Row]) -> str:
    """One line for each machine and commit of the rows."""
    found: dict[str, float] = {}
    for row in rows:
        here = row["machine"]
        line = (
            f"*{here['device_name']}, {here['threads']} threads on {here['cores']} cores, "
            f"torch {here['torch_version']}, commit {here['commit']}, {here['date'][:10]}"
        )
        found[line] = max(found.get(line, 0.0), here["load_average"])
    return "\n".join(
        f"{line}; load average at most {load:.1f} at the start of a measurement.*" for line, load in found.items()
    )


if __name__ == "__main__":
    main()
