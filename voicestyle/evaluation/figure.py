"""A JPEG of first and last faces, for the documentation."""

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from voicestyle.evaluation.generate import FacePair


def write_figure(path: Path, pairs: Sequence[FacePair], *, columns: int = 4, edge: int = 160) -> None:
    """Write a grid of pairs, each with the first face on the left and the last on the right, `edge` pixels per face."""
    gap = edge // 10
    rows = -(-len(pairs) // columns)
    sheet = Image.new("RGB", (columns * (2 * edge + gap) - gap, rows * (edge + gap) - gap), "white")
    for i, pair in enumerate(pairs):
        left, top = i % columns * (2 * edge + gap), i // columns * (edge + gap)
        for j, face in enumerate((pair.first, pair.last)):
            image = Image.open(io.BytesIO(face.image)).convert("RGB").resize((edge, edge), Image.Resampling.LANCZOS)
            sheet.paste(image, (left + j * edge, top))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, "JPEG", quality=85, optimize=True)
