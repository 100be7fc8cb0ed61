"""The tables of `benchmarks.gpu_estimate`, which shows what was computed and not measured."""

from collections.abc import Callable, Mapping, Sequence

from tabulate import tabulate

from benchmarks.results import Row

FILE = "gpu_estimate.jsonl"


def estimate_counts_table(rows: Sequence[Row]) -> str:
    """What one step consists of, by networks and dtype."""
    first = {(row["networks"], row["dtype"]): row for row in rows if row["batch"] == 1}
    largest = {(row["networks"], row["dtype"]): row for row in rows}
    return _estimate(
        {
            "networks": lambda row: row["networks"],
            "dtype": lambda row: row["dtype"],
            "kernels a step": lambda row: row["kernels"],
            "GFLOP a face": lambda row: f"{row['gflop']:.4g}",
            "GB moved, batch 1": lambda row: f"{row['gigabytes']:.3g}",
            "GB moved a face, batch 32": lambda row: (
                f"{(last := largest[row['networks'], row['dtype']])['gigabytes'] / last['batch']:.3g}"
            ),
            "activations a face, MiB": lambda row: row["activations_mib"],
            "weights, MiB": lambda row: row["weights_mib"],
            "engine's rows a face, MiB": lambda row: f"{row['rows_mib']:.2g}",
        },
        list(first.values()),
        "Counted on torch's meta device, which computes nothing",
    )


def estimate_table(rows: Sequence[Row], networks: str) -> str:
    """What a step of one set of networks should take on each GPU."""
    return _estimate(
        {
            "GPU, dtype": lambda row: f"{row['gpu']}, {row['dtype']}",
            "batch": lambda row: f"{row['batch']}{' (auto)' if row['batch'] == row['capacity'] else ''}",
            "arithmetic, ms": lambda row: f"{row['arithmetic_ms']:.3g}",
            "traffic, ms": lambda row: f"{row['memory_ms']:.3g}",
            "launches, ms": lambda row: f"{row['launches_ms']:.3g}",
            "ms a step": lambda row: f"{row['ms_per_step']:.3g}",
            "ms without graphs": lambda row: f"{row['ms_without_graphs']:.3g}",
            "faces a second": lambda row: f"{row['faces_per_second']:.2g}",
            "the same without graphs": lambda row: f"{row['faces_per_second_without_graphs']:.2g}",
            "memory, MiB": lambda row: row["memory_mib"],
        },
        [row for row in rows if row["networks"] == networks],
        "Computed, not measured; the uncertainty is a factor of about 2 either way",
    )


def _estimate(columns: Mapping[str, Callable[[Row], object]], rows: Sequence[Row], caption: str) -> str:
    if not rows:
        return "*Not computed yet.*"
    cells = [[str(column(row)) for column in columns.values()] for row in rows]
    text = tabulate(cells, headers=list(columns), tablefmt="github", disable_numparse=True)
    return f"{text}\n\n*{caption}. Operators of commit {rows[0]['commit']}.*"
