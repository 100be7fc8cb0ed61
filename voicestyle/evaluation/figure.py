"""A JPEG of first and last faces, for the documentation."""

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image


def write_figure(path: Path, pairs: Sequence[tuple[bytes, bytes]], *, columns: int = 4, edge: int = 160) -> None:
    """Write a grid of pairs of image files, first face on the left, last on the right, `edge` pixels per face."""
    gap = edge // 10
    rows = -(-len(pairs) // columns)
    sheet = Image.new("RGB", (columns * (2 * edge + gap) - gap, rows * (edge + gap) - gap), "white")
    for i, pair in enumerate(pairs):
        left, top = i % columns * (2 * edge + gap), i // columns * (edge + gap)
        for j, face in enumerate(pair):
            sheet.paste(thumbnail(face, edge), (left + j * edge, top))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, "JPEG", quality=85, optimize=True)


def thumbnail(image: bytes, edge: int) -> Image.Image:
    """An image file as RGB with `edge` by `edge` pixels."""
    with Image.open(io.BytesIO(image)) as opened:
        return opened.convert("RGB").resize((edge, edge), Image.Resampling.LANCZOS)
