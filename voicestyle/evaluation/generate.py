"""First and last faces of many recordings."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from voicestyle.face import Face
from voicestyle.offline import generate_faces
from voicestyle.options import Options
from voicestyle.pipeline import Pipeline


@dataclass(frozen=True)
class FacePair:
    """The face of the first latent, before any optimisation, and the face after the last step."""

    first: Face
    last: Face


def generate_pairs(
    pipeline: Pipeline,
    voices: Sequence[Path],
    progress: Callable[[range], Iterable[int]],
    *,
    steps: int | None = None,
    size: int = 256,
    seed: int = 0,
) -> list[FacePair]:
    """Generate the pair of faces of each recording, in order; `steps` None takes the bundle's default.

    The learning rate of the first step is 0, so the result of a one-step request is the first face.
    """
    options = {
        "first": Options(steps=1, seed=seed, size=size),
        "last": Options(steps=steps, seed=seed, size=size),
    }
    prepared = (
        (f"{name} {i}", pipeline.prepare(voices[i], options[name]))
        for i in progress(range(len(voices)))
        for name in options
    )
    faces = dict(generate_faces(pipeline, prepared))
    return [FacePair(faces[f"first {i}"], faces[f"last {i}"]) for i in range(len(voices))]
