"""A contact sheet: all kinds of faces of many speakers on one JPEG, chosen by their order alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from voicestyle.evaluation.figure import thumbnail

CELL = 96  # pixels
GAP = 14
LINE = 18  # height of a line of text
COLUMNS = 4  # speakers side by side, with three kinds of faces; more with fewer kinds
BACKGROUND, INK, PALE = "white", "#1d2330", "#556070"


@dataclass(frozen=True)
class SheetSpeaker:
    """One speaker. faces: for each recording, the image files by kind, all of the same kinds."""

    number: int
    sex: str
    faces: Sequence[Mapping[str, bytes]]


def write_contact_sheet(path: Path, speakers: Sequence[SheetSpeaker], *, cell: int = CELL) -> None:
    """Write the faces of speakers, a row for each recording and a column for each kind, with number and sex.

    Raises ValueError without speakers.
    """
    if not speakers:
        raise ValueError("a contact sheet needs at least one speaker")
    kinds = list(speakers[0].faces[0])
    tall = max(len(speaker.faces) for speaker in speakers)
    columns = min(len(speakers), max(1, COLUMNS * 3 // len(kinds)))
    width, height = len(kinds) * cell + GAP, tall * cell + LINE + GAP
    sheet = Image.new("RGB", (columns * width + GAP, -(-len(speakers) // columns) * height + LINE + GAP), BACKGROUND)
    drawing, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=13)
    for column in range(columns):
        for j, kind in enumerate(kinds):
            drawing.text((GAP + column * width + j * cell, GAP // 2), kind, PALE, font)
    for i, speaker in enumerate(speakers):
        left, top = GAP + i % columns * width, GAP // 2 + LINE + i // columns * height
        drawing.text((left, top), f"speaker {speaker.number}, {speaker.sex}", INK, font)
        for row, faces in enumerate(speaker.faces):
            for j, kind in enumerate(kinds):
                sheet.paste(thumbnail(faces[kind], cell), (left + j * cell, top + LINE + row * cell))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, "JPEG", quality=85, optimize=True)
