"""What a variant's faces are worth, against those of the float32 reference from the same voices and noise."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from benchmarks.processes import measure
from benchmarks.rows import significant
from benchmarks.variants import VARIANTS

PEAK = 255


@dataclass(frozen=True)
class Made:
    """One final face: cos(voice, face), and its pixels [S, S, 3]."""

    similarity: float
    pixels: NDArray[np.uint8]


def make(subject: str, variant: str, face: int, options: Sequence[object], folder: Path) -> Made:
    """Run the whole schedule. Raises MeasurementError."""
    image = folder / "face.npy"
    arguments = [*options, "quality", "--subject", subject, "--variant", variant, "--face", face, "--image", image]
    found = measure("benchmarks.measure", arguments, VARIANTS[variant].environment)
    return Made(found["similarity"], np.load(image))


def compare(made: Sequence[Made], reference: Sequence[Made]) -> dict[str, float | int | None]:
    """Means of the similarities, the largest difference of any face, and the worst PSNR (None for equal images)."""
    ratios = [psnr(a.pixels, b.pixels) for a, b in zip(made, reference, strict=True)]
    worst = min(ratios)
    differences = [a.similarity - b.similarity for a, b in zip(made, reference, strict=True)]
    return {
        "faces": len(made),
        "similarity": round(fmean(face.similarity for face in made), 5),
        "reference_similarity": round(fmean(face.similarity for face in reference), 5),
        "largest_difference": round(max(differences, key=abs), 5),
        "worst_psnr_db": None if worst == float("inf") else significant(worst),
    }


def psnr(image: NDArray[np.uint8], reference: NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio in dB of two images of bytes; infinite for equal ones."""
    error = np.square(image.astype(np.float64) - reference).mean()
    return float(10 * np.log10(PEAK**2 / error)) if error else float("inf")
