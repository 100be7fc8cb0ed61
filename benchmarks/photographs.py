"""What docs/photographs.md reports: how well the frame of FFHQ is recovered, and the distributions behind the gates.

    python -m benchmarks.photographs [--faces N] [--fit N] [--output FILE]

Generated faces, whose frame is known, are placed into larger pictures; real faces come from the packages that
`tests/support/real_photographs.py` names. With --fit, the weights of `voicestyle/photographs/five_points.py` are fitted
to as many other generated faces and printed instead.
"""

import io
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tabulate import tabulate
from tqdm import tqdm

from tests.support.placed_faces import displacement, generated_face, load_generator, place, random_square
from tests.support.real_photographs import partial_faces, real_portraits, single_faces
from voicestyle.photographs import Figures, PhotographJudge
from voicestyle.photographs.alignment import Points, Square
from voicestyle.photographs.detectors import DlibDetector, YuNetDetector
from voicestyle.photographs.five_points import FIRST_FITTED, fit_weights
from voicestyle.photographs.measuring import measure

Pixels = NDArray[np.uint8]
JUDGES = ("dlib", "yunet")
DEGRADED = 20  # faces of each source
PERCENTILES = (0, 5, 25, 50, 75, 95, 100)


def placed(seeds: Iterable[int]) -> Iterable[tuple[Pixels, Square]]:
    """Pictures and the frames of the generated faces in them."""
    generator = load_generator()
    for seed in tqdm(seeds, file=sys.stderr):
        square = random_square(seed)
        yield place(generated_face(generator, seed), square), square


def resampled(aligned: Pixels, size: int) -> Pixels:
    """The aligned face at a smaller size."""
    return np.array(Image.fromarray(aligned).resize((size, size), Image.Resampling.LANCZOS))


def compressed(aligned: Pixels, quality: int) -> Pixels:
    """The aligned face after JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(aligned).save(buffer, "JPEG", quality=quality)
    return np.array(Image.open(buffer).convert("RGB"))


DEGRADATIONS: dict[str, Callable[[Pixels], Pixels]] = {
    "as it is": lambda aligned: aligned,
    "128 pixels": lambda aligned: resampled(aligned, 128),
    "128 pixels, JPEG 75": lambda aligned: compressed(resampled(aligned, 128), 75),
    "96 pixels": lambda aligned: resampled(aligned, 96),
    "64 pixels": lambda aligned: resampled(aligned, 64),
    "48 pixels": lambda aligned: resampled(aligned, 48),
    "JPEG 10": lambda aligned: compressed(aligned, 10),
}


def row(name: str, values: Iterable[float | None], digits: int) -> list[str]:
    """A row of the distribution of the values that could be measured."""
    known = [value for value in values if value is not None]
    percentiles = np.percentile(known, PERCENTILES) if known else [np.nan] * len(PERCENTILES)
    return [name, str(len(known)), *(f"{value:.{digits}f}" for value in percentiles)]


def figure_rows(name: str, figures: list[Figures]) -> list[list[str]]:
    """Rows of all figures of one set of pictures."""
    return [
        row(f"{name}: faces", [each.faces for each in figures], 0),
        row(f"{name}: score", [each.score for each in figures], 2),
        row(f"{name}: size", [each.size for each in figures], 0),
        row(f"{name}: yaw", [each.yaw for each in figures], 0),
        row(f"{name}: |yaw|", [each.yaw and abs(each.yaw) for each in figures], 0),
        row(f"{name}: pitch", [each.pitch for each in figures], 0),
        row(f"{name}: sharpness", [each.sharpness for each in figures], 0),
        row(f"{name}: outside", [each.outside for each in figures], 2),
    ]


def distributions(faces: int) -> list[list[str]]:
    """All rows."""
    detectors = {"dlib": DlibDetector(), "yunet": YuNetDetector()}
    rows: list[list[str]] = []
    distances: dict[str, list[float]] = {name: [] for name in JUDGES}
    figures: dict[str, list[Figures]] = {name: [] for name in JUDGES}
    aligned: dict[str, list[Pixels]] = {"generated": [], "real": []}
    for picture, true in placed(range(faces)):
        for name, detector in detectors.items():
            measured = measure(detector, picture, scale=1.0, align=True)
            figures[name].append(measured.figures)
            if measured.square is not None and measured.aligned is not None:
                distances[name].append(displacement(measured.square, true))
                if name == "dlib":
                    aligned["generated"].append(measured.aligned)
    for name in JUDGES:
        rows.append(row(f"{name}: displacement", distances[name], 1))
        rows.extend(figure_rows(f"{name}, {faces} generated", figures[name]))
    real = [*real_portraits(), *single_faces()]
    for name in JUDGES:
        judge = PhotographJudge(name)
        results = [judge(path) for path in real]
        rows.extend(figure_rows(f"{name}, {len(real)} real", [each.figures for each in results]))
        rows.append(row(f"{name}, cut faces: outside", [judge(path).figures.outside for path in partial_faces()], 2))
        if name == "dlib":
            aligned["real"] = [each.aligned for each in results if each.aligned is not None]
    for source, pictures in aligned.items():
        for title, degrade in DEGRADATIONS.items():
            for name, detector in detectors.items():
                seen = [measure(detector, degrade(each), 1.0, align=False).figures for each in pictures[:DEGRADED]]
                rows.append(row(f"{name}, {source}, {title}: score", [each.score for each in seen], 2))
                rows.append(row(f"{name}, {source}, {title}: sharpness", [each.sharpness for each in seen], 0))
    return rows


def fit(faces: int) -> str:
    """Weights of the five points, fitted to faces that `distributions` does not see."""
    detector = YuNetDetector()
    points: list[Points] = []
    squares: list[Square] = []
    for picture, true in placed(range(FIRST_FITTED, FIRST_FITTED + faces)):
        if found := detector.find(picture):
            points.append(detector.refine(picture, max(found, key=lambda face: face.edge)).points)
            squares.append(true)
    return "\n".join(repr(weights.round(4)) for weights in fit_weights(np.array(points), squares))


@click.command(context_settings={"show_default": True})
@click.option("--faces", default=80, help="Generated faces to measure.")
@click.option("--fit", "to_fit", default=0, help="Fit the weights of the five points to so many generated faces.")
@click.option("--output", type=click.Path(path_type=Path), default=None, help="Also write the table to this file.")
def main(faces: int, to_fit: int, output: Path | None) -> None:
    """Print the table of docs/photographs.md."""
    if to_fit:
        click.echo(fit(to_fit))
        return
    table = tabulate(distributions(faces), ["", "n", *(f"{p} %" for p in PERCENTILES)], "github", disable_numparse=True)
    click.echo(table)
    if output:
        output.write_text(table + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
