"""Faces without a server: many prepared voices through one pipeline in this process."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from time import perf_counter

from voicestyle.face import Face
from voicestyle.options import Options
from voicestyle.pipeline import FaceRequest, Pipeline, Prepared, Progress
from voicestyle.scheduling import Phase, Scheduler

ITERATION_SECONDS = 0.15  # progress is reported about so often


def generate_face(pipeline: Pipeline, audio: bytes | Path, options: Options | None = None) -> Face:
    """The face of one recording. Raises InputError for audio or options that cannot be used."""
    prepared = pipeline.prepare(audio, options or Options())
    return next(face for _, face in generate_faces(pipeline, [("", prepared)]))


def generate_faces(
    pipeline: Pipeline,
    prepared: Iterable[tuple[str, Prepared]],
    on_progress: Callable[[dict[str, Progress]], None] | None = None,
) -> Iterator[tuple[str, Face]]:
    """The faces of prepared requests, each with its key, in the order in which they finish.

    prepared: keys and requests; a new one is taken whenever a slot of the batch is free. on_progress: called with the
    progress of the requests that took steps, several times a second.
    """
    scheduler = Scheduler[FaceRequest](
        pipeline.capacity, 0, batched=pipeline.batched, iteration_seconds=ITERATION_SECONDS
    )
    arriving = iter(prepared)
    try:
        while True:
            scheduler.begin()
            while len(scheduler.requests) < pipeline.capacity and (arrived := next(arriving, None)):
                scheduler.add(FaceRequest.of(*arrived))
            if not scheduler.requests:
                return
            pipeline.start(scheduler.start_waiting())
            while without_steps := scheduler.next_without_steps():
                for request, rendered in zip(without_steps, pipeline.render_all(without_steps), strict=True):
                    scheduler.finish(request)
                    yield request.id, rendered.encode()
            plan = scheduler.plan()
            began = perf_counter()
            for requests in plan.steps:
                pipeline.step(requests)
            progress = pipeline.progress(plan.requests)
            scheduler.record_steps(plan, perf_counter() - began)
            if on_progress and progress:
                on_progress(progress)
            while request := scheduler.next_to_render():
                face = pipeline.render(request).encode()
                scheduler.finish(request)
                yield request.id, face
    finally:  # the caller may stop early
        for request in scheduler.in_phase(Phase.RUNNING):
            with suppress(KeyError):  # it finished during a step that failed
                pipeline.remove(request)
