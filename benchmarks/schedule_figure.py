"""Similarity and an outside model's view over the seconds of each schedule, as one SVG."""

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from benchmarks.markdown import latest
from benchmarks.rows import Row
from voicestyle.archive import ROOT

PATH = ROOT / "docs" / "images" / "schedules.svg"
COLOURS = ("#c0392b", "#7f8c8d", "#e67e22", "#2c3e50")
WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 330, 220, 44, 26, 34  # of a panel, and its margins
KEY_HEIGHT = 22

Points = Sequence[tuple[float, float]]


def write(path: Path, rows: Sequence[Row]) -> None:
    """The figure of the comparison's rows; none where there are none."""
    if found := compared(rows):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(drawn(found), encoding="utf-8")


def compared(rows: Sequence[Row]) -> list[Row]:
    """The last row of each schedule of the comparison."""
    return latest([row for row in rows if row["speakers"] == "comparison"], ("candidate",))


def seconds_per_step(rows: Sequence[Row]) -> float:
    """One for all schedules, whose steps cost the same; the machine's other work must not set them apart."""
    return median(row["ms_per_step"]["median"] for row in rows) / 1e3


def drawn(rows: Sequence[Row]) -> str:
    """The SVG's text."""
    second = seconds_per_step(rows)
    views: dict[str, Callable[[Row], Points]] = {
        "similarity over steps": lambda row: list(enumerate(row["curve"])),
        "similarity over seconds": lambda row: [(step * second, value) for step, value in enumerate(row["curve"])],
        "outside model, probability of the right sex, over seconds": lambda row: [
            (view["step"] * second, view["probability"]) for view in row["shown"]
        ],
        "change of skin luminance (0 to 255), over seconds": lambda row: [
            (view["step"] * second, view["skin_change"]) for view in row["shown"]
        ],
    }
    parts = [
        _panel(title, [points(row) for row in rows], (place % 2 * WIDTH, place // 2 * HEIGHT))
        for place, (title, points) in enumerate(views.items())
    ]
    for place, (row, colour) in enumerate(zip(rows, COLOURS, strict=False)):
        x, y = LEFT + place * (2 * WIDTH - LEFT) / len(COLOURS), 2 * HEIGHT + KEY_HEIGHT / 2
        parts.append(f'<path d="M{x:.0f} {y:.0f}h18" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<text x="{x + 24:.0f}" y="{y + 4:.0f}">{row["candidate"]}</text>')
    size = f'width="{2 * WIDTH}" height="{2 * HEIGHT + KEY_HEIGHT}"'
    style = 'font-family="sans-serif" font-size="11" fill="none"'
    text = "<style>text{fill:#333}</style>"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>\n'
        + "\n".join([_ground(), text, *parts])
        + "\n</svg>\n"
    )


def _ground() -> str:
    return '<rect width="100%" height="100%" fill="white"/>'


def _panel(title: str, lines: Sequence[Points], corner: tuple[float, float]) -> str:
    """Axes from zero and just below the least value, which 0 bounds where none is negative, and the lines."""
    across = max(x for line in lines for x, _ in line)
    values = [y for line in lines for _, y in line]
    low, high = min(values), max(values)
    margin = (high - low or 1) * 0.08
    low, high = low - margin if low < 0 else max(0.0, low - margin), high + margin
    width, height = WIDTH - LEFT - 16, HEIGHT - TOP - BOTTOM

    def place(x: float, y: float) -> str:
        return f"{LEFT + x / across * width:.1f} {TOP + (high - y) / (high - low) * height:.1f}"

    parts = [f'<g transform="translate({corner[0]} {corner[1]})"><text x="{LEFT}" y="{TOP - 8}">{title}</text>']
    parts.append(f'<path d="M{LEFT} {TOP}v{height}h{width}" stroke="#999"/>')
    for share in (0, 0.5, 1):
        x, y = across * share, low + (high - low) * share
        parts.append(
            f'<text x="{LEFT + share * width:.0f}" y="{TOP + height + 16}" text-anchor="middle">{x:.3g}</text>'
        )
        parts.append(f'<text x="{LEFT - 4}" y="{TOP + (1 - share) * height + 4:.0f}" text-anchor="end">{y:.3g}</text>')
    for line, colour in zip(lines, COLOURS, strict=False):
        path = "L".join(place(x, y) for x, y in line)
        parts.append(f'<path d="M{path}" stroke="{colour}" stroke-width="1.5"/>')
    return "\n".join([*parts, "</g>"])
