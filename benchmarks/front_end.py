"""A recording to its log-mel, in milliseconds on one core: ours, its stages, and the plain loops.

python -m benchmarks.front_end
"""

import io
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import median

import click
import numpy as np
import soundfile
import torch

from benchmarks import plain_front_end
from benchmarks.machine import Machine
from benchmarks.rows import RESULTS, Spread, append
from cmpc2 import decode, log_mel, speech_only
from cmpc2.audio import SAMPLE_RATE
from voicestyle.archive import ROOT

OURS, PLAIN = "ours", "frame by frame"
PACKAGES = ("numpy", "soundfile", "webrtcvad-wheels")


@click.command()
@click.option("--voice", default=ROOT / "samples" / "slt.wav", type=click.Path(path_type=Path, exists=True))
@click.option("--seconds", default=9.0, show_default=True, help="Of the recording, which must last so long.")
@click.option("--repeats", default=5, show_default=True, type=click.IntRange(1))
@click.option("--runs", default=50, show_default=True, type=click.IntRange(1), help="A repeat; plain loops a tenth.")
@click.option("--output", default=RESULTS / "front_end.jsonl", type=click.Path(path_type=Path), help="Rows are added.")
def main(voice: Path, seconds: float, repeats: int, runs: int, output: Path) -> None:
    """Measure each variant in turn, again and again, and write a row for each."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    machine = Machine.here(torch.device("cpu"))
    audio = beginning(voice, seconds)
    samples = decode(audio)
    speech = speech_only(samples)
    expected = plain_front_end.front_end(audio)
    whole: dict[str, Callable[[], np.ndarray]] = {
        OURS: lambda: log_mel(speech_only(decode(audio))),
        PLAIN: lambda: plain_front_end.front_end(audio),
        "frame by frame, emphasis sample by sample": partial(
            plain_front_end.front_end, audio, plain_front_end.emphasise_by_sample
        ),
    }
    stages: dict[str, Callable[[], np.ndarray]] = {
        "ours, decode": lambda: decode(audio),
        "ours, speech only": lambda: speech_only(samples),
        "ours, log-mel": lambda: log_mel(speech),
    }
    times: dict[str, list[tuple[float, float, float]]] = {name: [] for name in whole | stages}
    for _ in range(repeats):
        for name, run in (whole | stages).items():
            times[name].append(milliseconds(run, max(1, runs if name.startswith(OURS) else runs // 10)))
    for name in times:
        wall, cpu, best = zip(*times[name], strict=True)
        row = {
            "benchmark": "front end",
            "variant": name,
            "voice": voice.name,
            "audio_seconds": len(samples) / SAMPLE_RATE,
            "speech_seconds": len(speech) / SAMPLE_RATE,
            "repeats": repeats,
            "milliseconds": Spread.of(wall).as_row(),
            "cpu_milliseconds": Spread.of(cpu).as_row(),
            "best_milliseconds": round(min(best), 3),
            "machine": asdict(machine) | {"threads": 1, "versions": {each: version(each) for each in PACKAGES}},
        }
        if name in whole:
            # Of each repeat, so that both were measured in the same half minute.
            ratios = [plain[1] / each[1] for plain, each in zip(times[PLAIN], times[name], strict=True)]
            row["times_as_fast_as_plain"] = Spread.of(ratios).as_row()
            row["max_difference_to_plain"] = float(np.abs(whole[name]() - expected).max())
        append(output, row)
        click.echo(f"{name}: {median(wall):.3g} ms, best {min(best):.3g} ms")


def beginning(voice: Path, seconds: float) -> bytes:
    """The first seconds of a recording, as a 16-bit 16 kHz mono WAV file."""
    samples = decode(voice)
    count = round(seconds * SAMPLE_RATE)
    if len(samples) < count:
        raise click.BadParameter(f"{voice.name} must last {seconds:g} s, it lasts {len(samples) / SAMPLE_RATE:.2f} s")
    file = io.BytesIO()
    soundfile.write(file, samples[:count], SAMPLE_RATE, format="WAV", subtype="PCM_16")
    return file.getvalue()


def milliseconds(run: Callable[[], object], runs: int) -> tuple[float, float, float]:
    """Medians of wall and CPU time, and the least wall time, after a warm-up."""
    run()
    wall: list[float] = []
    cpu: list[float] = []
    for _ in range(runs):
        began, cpu_began = time.perf_counter(), time.process_time()
        run()
        cpu.append(1e3 * (time.process_time() - cpu_began))
        wall.append(1e3 * (time.perf_counter() - began))
    return median(wall), median(cpu), min(wall)


if __name__ == "__main__":
    main()
