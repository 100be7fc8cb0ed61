"""Tables of rows in Markdown."""

from collections.abc import Callable, Mapping, Sequence

from benchmarks.rows import Row

NOT_MEASURED = "*Not measured yet.*"
NONE = "–"

Column = Callable[[Row], str]


def table(columns: Mapping[str, Column], rows: Sequence[Row]) -> str:
    """Markdown, and below it the machines and commits; a row with an error has it in its second column."""
    if not rows:
        return NOT_MEASURED
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    lines += ["| " + " | ".join(_cells(columns, row)) + " |" for row in rows]
    return "\n".join((*lines, "", *_machines(rows)))


def spread(values: Mapping[str, float]) -> str:
    """Median (least–most)."""
    least, most = (f"{values[name]:.4g}" for name in ("min", "max"))
    middle = f"{values['median']:.4g}"
    return middle if least == most else f"{middle} ({least}–{most})"


def latest(rows: Sequence[Row], names: Sequence[str]) -> list[Row]:
    """Of rows that agree in all names (`machine.threads` looks inside) the last, in the order of the first."""
    found = {tuple(_look(row, name) for name in names): row for row in rows}
    return list(found.values())


def _look(row: Row, name: str) -> object:
    value: object = row
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _cells(columns: Mapping[str, Column], row: Row) -> list[str]:
    cells: list[str] = []
    for column in columns.values():
        try:
            cells.append(column(row))
        except (KeyError, TypeError):  # not measured
            cells.append(NONE)
    if error := row.get("error"):
        cells[-1] = f"failed: {str(error)[:200]}".replace("|", "/")
    return cells


def _machines(rows: Sequence[Row]) -> list[str]:
    """One line for each machine and commit that the rows come from."""
    found: dict[str, float] = {}
    for row in rows:
        here = row["machine"]
        line = (
            f"*{here['device_name']}, {here['threads']} threads on {here['cores']} cores, "
            f"torch {here['torch_version']}, commit {here['commit']}, {here['date'][:10]}"
        )
        found[line] = max(found.get(line, 0.0), here["load_average"])
    return [f"{line}; load average at most {load:.1f} when a measurement began.*" for line, load in found.items()]
