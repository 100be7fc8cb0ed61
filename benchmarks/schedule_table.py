"""The tables of docs/presets.md: schedules side by side."""

from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.markdown import NONE, Column, latest, table
from benchmarks.rows import Row, read
from benchmarks.schedule_figure import seconds_per_step

TOLERANCE = 0.005  # of a similarity that counts as the same
BASELINE = "published"


def schedule_table(speakers: str) -> Callable[[Path], str]:
    """The renderer of a group of speakers, by its name."""

    def render(results: Path) -> str:
        rows = latest([row for row in read(results / "schedules.jsonl") if row["speakers"] == speakers], ("candidate",))
        return table(_columns(rows), rows)

    return render


def _columns(rows: Sequence[Row]) -> dict[str, Column]:
    baselines = {row["whole"]: row["similarity"] for row in rows if row["candidate"].startswith(BASELINE)}
    second = seconds_per_step(rows) if rows else 0.0
    return {
        "schedule": lambda row: row["candidate"],
        "steps": lambda row: str(row["steps"]),
        "s": lambda row: f"{row['steps'] * second:.3g}",
        "similarity": lambda row: f"{row['similarity']:.4f}",
        "to published": lambda row: f"{row['similarity'] - baselines[row['whole']]:+.4f}",
        "as published from step": lambda row: _reached(row["curve"], baselines[row["whole"]] - TOLERANCE),
        "right sex": lambda row: f"{row['shown'][-1]['agreement']} of {row['voices']}",
        "its probability": lambda row: f"{row['shown'][-1]['probability']:.3f}",
        "change of skin": lambda row: f"{row['shown'][-1]['skin_change']:.1f}",
        "stopping rule: steps": lambda row: f"{row['stopped']['steps']:.3g}",
        "its similarity": lambda row: f"{row['stopped']['similarity']:.4f}",
    }


def _reached(curve: Sequence[float], least: float) -> str:
    return next((str(step) for step, value in enumerate(curve) if value >= least), NONE)
