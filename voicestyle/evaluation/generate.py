"""First and last faces of many recordings, generated in batches."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from voicestyle.face import Face
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
    pairs: list[FacePair] = []
    half = max(1, pipeline.capacity // 2)
    for start in progress(range(0, len(voices), half)):
        group = voices[start : start + half]
        most = 1
        for i, voice in enumerate(group):
            pipeline.submit(f"first {i}", voice, Options(steps=1, seed=seed, size=size))
            settings = pipeline.submit(f"last {i}", voice, Options(steps=steps, seed=seed, size=size))
            most = max(most, settings.steps)
        pipeline.step(most)
        pairs += [FacePair(pipeline.finish(f"first {i}"), pipeline.finish(f"last {i}")) for i in range(len(group))]
    return pairs
