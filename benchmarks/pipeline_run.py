"""A whole pipeline in one process: its start, requests that join a full batch, and minutes of joining and leaving."""

import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from benchmarks.measure import memory_mib, now, peak_resident_mib
from benchmarks.networks import NETWORKS, VOICES, Synthetic
from benchmarks.results import ROOT, machine
from benchmarks.synthetic_bundle import bundle_parts
from voicestyle.bundle import write_bundle
from voicestyle.devices import prepare_device
from voicestyle.offline import generate_faces
from voicestyle.options import Options
from voicestyle.pipeline import FaceRequest, Pipeline, Prepared
from voicestyle.precision import choose_dtype

JOINING_STEPS = 2  # of a request that joins


@contextmanager
def bundle_folder(networks: str) -> Generator[Path]:
    """The folder of a bundle of these networks: the demo's own, or a temporary one of synthetic networks."""
    source = NETWORKS[networks]
    if not isinstance(source, Synthetic):
        yield ROOT / "bundles" / networks
        return
    with tempfile.TemporaryDirectory() as folder:
        write_bundle(Path(folder) / networks, **bundle_parts(source))
        yield Path(folder) / networks


def run(
    networks: str, dtype: str, capacity: int | None, joins: int, soak_seconds: float, device: str
) -> dict[str, Any]:
    """Measure a pipeline that is loaded as by the service. capacity: None lets it choose. joins: requests to time."""
    where = torch.device(device)
    prepare_device(where)
    here = machine(device)
    voices = [path.read_bytes() for path in VOICES]
    with bundle_folder(networks) as folder:
        began = now(where)
        pipeline = Pipeline.load(folder, device=where, capacity=capacity, dtype=choose_dtype(dtype, where))
        start = now(where) - began
    return {
        "machine": here,
        "computing": {
            name: getattr(pipeline.computing, name) for name in ("device", "dtype", "batching", "graphs", "capacity")
        },
        "start_seconds": start,
        "join": [join(pipeline, voices[number % len(voices)], number) for number in range(joins)],
        "soak": soak(pipeline, voices, soak_seconds),
        "peak_resident_mib": peak_resident_mib(),
        "peak_cuda_mib": torch.cuda.max_memory_reserved(where) / 2**20 if where.type == "cuda" else None,
    }


def join(pipeline: Pipeline, voice: bytes, number: int) -> dict[str, float]:
    """Seconds from a request's audio to the result of its first step, in a batch that it fills: all, and preparation.

    An iteration of the others that is running when it arrives is not counted: it adds one step at most.
    """
    longest = pipeline.manifest.limits.steps
    others = [
        FaceRequest.of(f"other {row}", pipeline.prepare(voice, Options(seed=row, steps=longest)))
        for row in range(pipeline.capacity - 1)
    ]
    pipeline.start(others)
    _step(pipeline, others)
    began = perf_counter()  # `_step` has waited for the device
    joining = FaceRequest.of("joining", pipeline.prepare(voice, Options(seed=number, steps=JOINING_STEPS)))
    prepared = perf_counter()
    pipeline.start([joining])
    _step(pipeline, [*others, joining] if pipeline.batched else [joining])
    seconds = perf_counter() - began
    for request in (*others, joining):
        pipeline.remove(request)
    return {"seconds": seconds, "preparation": prepared - began}


def _step(pipeline: Pipeline, requests: list[FaceRequest]) -> None:
    pipeline.step(requests)
    pipeline.progress(requests)


def soak(pipeline: Pipeline, voices: list[bytes], seconds: float) -> dict[str, Any]:
    """Faces of different numbers of steps for so many seconds, each prepared, stepped, rendered and encoded.

    Memory is that of tensors on a GPU, and resident on a CPU, at a quarter of the time and at its end. Raises
    RuntimeError for a face whose similarity is no number or does not change.
    """
    most, device = pipeline.manifest.limits.steps, pipeline.device
    began = perf_counter()
    faces = steps = 0
    early: float | None = None

    def arriving() -> Iterator[tuple[str, Prepared]]:
        for number in count():
            if perf_counter() - began > seconds:
                return
            options = Options(seed=number, steps=max(2, most - number % (most // 2 + 1)), format="jpeg")
            yield str(number), pipeline.prepare(voices[number % len(voices)], options)

    for key, face in generate_faces(pipeline, arriving()):
        if not len(set(face.trace)) > 1 or face.similarity != face.similarity:
            raise RuntimeError(f"face {key} of the soak has the similarities {face.trace[:5]} …")
        faces += 1
        steps += face.settings.steps
        if early is None and perf_counter() - began > seconds / 4:
            early = memory_mib(device)
    took, late = perf_counter() - began, memory_mib(device)
    return {
        "seconds": took,
        "faces": faces,
        "steps": steps,
        "memory_mib": late,
        "growth_mib": late - (late if early is None else early),
    }
