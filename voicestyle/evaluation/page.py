"""Write report.json, and report.html from it: one file that loads nothing."""

import base64
import io
from pathlib import Path
from typing import Any

import msgspec
from jinja2 import Environment, PackageLoader, StrictUndefined
from msgspec import structs
from PIL import Image

from voicestyle import __version__
from voicestyle.evaluation import plots
from voicestyle.evaluation.errors import EvaluationError
from voicestyle.evaluation.report import FORMAT, LAST, FaceRow, Generation, Recognition, Report, to_json
from voicestyle.whole_files import write_whole

JSON, HTML = "report.json", "report.html"
EXAMPLE_SPEAKERS = 8
EXAMPLE_SIZE = 144  # pixels
TEMPLATE = "evaluation.html"


def write_report(folder: Path, *, recognition: Recognition | None = None, generation: Generation | None = None) -> Path:
    """Write both files; a section that is not given is kept from an earlier report. Returns the path of the page.

    Raises EvaluationError if `folder` has a report.json of another kind, OSError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    earlier = earlier_report(folder)
    report = structs.replace(
        earlier,
        voicestyle=__version__,
        recognition=recognition or earlier.recognition,
        generation=generation or earlier.generation,
    )
    write_whole(folder / JSON, to_json(report))
    report = read_report(folder)  # the page shows what the file says
    write_whole(folder / HTML, render(report, folder).encode())
    return folder / HTML


def earlier_report(folder: Path) -> Report:
    """The report of a folder, without sections if it has none. Raises as `read_report`."""
    return read_report(folder) if (folder / JSON).exists() else Report(voicestyle=__version__)


def read_report(folder: Path) -> Report:
    """Read the report.json of a folder. Raises EvaluationError for other content, OSError."""
    path = folder / JSON
    try:
        report = msgspec.json.decode(path.read_bytes(), type=Report)
    except msgspec.DecodeError as error:
        raise EvaluationError(f"{path} must be a report of this version, or be removed: {error}") from None
    if report.format != FORMAT:
        raise EvaluationError(f"{path} must be of format {FORMAT}, or be removed, received format {report.format}")
    return report


def render(report: Report, folder: Path) -> str:
    """The page. folder: of the example faces."""
    environment = Environment(
        loader=PackageLoader("voicestyle", "assets/evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    values: dict[str, Any] = {"report": report, "plots": {}, "examples": []}
    if recognition := report.recognition:
        values["plots"] |= _recognition_plots(recognition)
    if generation := report.generation:
        values["plots"]["change"] = plots.change_plot(generation)
        if consistency := generation.faces[LAST].consistency:
            values["plots"]["consistency"] = plots.consistency_plot(consistency)
        if generation.conditions and any(each.sex for each in generation.conditions.figures.values()):
            values["plots"]["conditions"] = plots.conditions_plot(generation.conditions)
        values["examples"] = examples(generation, folder)
    return environment.get_template(TEMPLATE).render(values)


def examples(generation: Generation, folder: Path) -> list[dict[str, Any]]:
    """Up to eight speakers, half of each sex, in the order of the table, each with the faces of its recordings."""
    speakers: dict[str, list[FaceRow]] = {}
    for row in generation.rows:
        speakers.setdefault(row.speaker, []).append(row)
    chosen: list[list[FaceRow]] = []
    for sex in ("F", "M"):
        chosen += [rows for rows in speakers.values() if rows[0].sex == sex][: EXAMPLE_SPEAKERS // 2]
    return [
        {
            "speaker": rows[0].speaker,
            "sex": rows[0].sex,
            "recordings": [
                {"row": row, "faces": {kind: _thumbnail(folder / face.file) for kind, face in row.faces.items()}}
                for row in rows
            ],
        }
        for rows in chosen
    ]


def _recognition_plots(recognition: Recognition) -> dict[str, str]:
    found: dict[str, str] = {}
    pairs = [result for result in recognition.matching if result.candidates == 2]
    if pairs:
        found["matching"] = plots.matching_plot(pairs)
    curve = [result for result in recognition.matching if result.group == "U" and not result.derived]
    if len({result.candidates for result in curve}) > 1:
        found["one_to_n"] = plots.one_to_n_plot(curve)
    if recognition.verification:
        found["roc"] = plots.roc_plot(recognition.verification)
    return found


def _thumbnail(path: Path) -> str | None:
    """A face as a data URL; None if its file was removed since."""
    if not path.is_file():
        return None
    stream = io.BytesIO()
    with Image.open(path) as image:
        image.convert("RGB").resize((EXAMPLE_SIZE, EXAMPLE_SIZE), Image.Resampling.LANCZOS).save(
            stream, "JPEG", quality=85
        )
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()
