"""Schedules of the optimisation against each other: similarity, an outside model's view, skin, over steps and seconds.

python -m benchmarks.schedules --bundle bundles/demo --voices FOLDER --judge FOLDER
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import click
import numpy as np
import torch

from benchmarks import schedule_figure
from benchmarks.machine import Machine
from benchmarks.rows import RESULTS, Row, Spread, append, read, significant
from benchmarks.schedule_trials import Trial, Trials
from voicestyle.demo_bundle import ASSETS
from voicestyle.engine import Schedule
from voicestyle.evaluation.agreement import SEXES
from voicestyle.evaluation.held_out import HeldOutSpeaker, held_out_speakers
from voicestyle.evaluation.judge import Judgement, judge_faces
from voicestyle.evaluation.skin import skin_luminance
from voicestyle.presets import PRESETS, Preset

# So many speakers of each sex, the first that were held out for the search and the next for the comparison.
SPEAKERS: Mapping[str, slice] = {"search": slice(0, 3), "comparison": slice(3, 13)}
SHOWN = (0.25, 0.5, 1.0)  # shares of the steps after which faces are judged
STALLED = 0.002  # a stopping rule: the similarity rose by less
PATIENCE = 3  # over so many steps


@dataclass(frozen=True)
class Candidate:
    """A preset as a bundle of `whole` default steps would run it."""

    whole: int
    preset: Preset = field(default_factory=Preset)

    @property
    def steps(self) -> int:
        """How many it takes."""
        return self.preset.steps(self.whole)


def quarter(
    rate: float,
    noise: float = 0.0,
    up: float = 0.05,
    down: float = 0.25,
    betas: tuple[float, float] = (0.9, 0.999),
) -> Candidate:
    """A quarter of the demo's 50 steps, at so many times the learning rate."""
    return Candidate(50, Preset(0.25, rate, up, down, noise, betas))


SEARCH: Mapping[str, Candidate] = {
    "published, 50": Candidate(50),
    "rate × 4": quarter(4),
    "rate × 4, noise 0.05": quarter(4, 0.05),
    "rate × 4, noise 0.02": quarter(4, 0.02),
    "rate × 4, β 0.8 and 0.99": quarter(4, betas=(0.8, 0.99)),
    "rate × 4, β 0.9 and 0.9": quarter(4, betas=(0.9, 0.9)),
    "rate × 4, β 0.5 and 0.999": quarter(4, betas=(0.5, 0.999)),
    "rate × 3, β 0.5 and 0.999": quarter(3, betas=(0.5, 0.999)),
    "rate × 2.5, β 0.5 and 0.999": quarter(2.5, betas=(0.5, 0.999)),
    "rate × 3, β 0 and 0.999": quarter(3, betas=(0.0, 0.999)),
    "rate × 3, β 0.5 and 0.999, ramp down 0.75": quarter(3, down=0.75, betas=(0.5, 0.999)),
    "rate × 2, β 0.5 and 0.999": quarter(2, betas=(0.5, 0.999)),
    "rate × 8": quarter(8),
}
COMPARISON: Mapping[str, Candidate] = {
    "fast, of 50": Candidate(50, PRESETS["fast"]),
    "published, 50": Candidate(50),
    "fast, of 100": Candidate(100, PRESETS["fast"]),
    "published, 100": Candidate(100),
}
CANDIDATES: Mapping[str, Mapping[str, Candidate]] = {"search": SEARCH, "comparison": COMPARISON}


@click.command()
@click.option("--bundle", required=True, type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--voices", required=True, type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--judge", required=True, type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--assets", default=ASSETS, type=click.Path(path_type=Path, exists=True), help="Name the speakers.")
@click.option("--speakers", "group", default="comparison", show_default=True, type=click.Choice(tuple(SPEAKERS)))
@click.option("--candidate", "names", multiple=True, help="Only these.  [default: all of the group]")
@click.option("--pictures", type=click.Path(path_type=Path), help="A folder that keeps the faces.")
@click.option("--output", default=RESULTS / "schedules.jsonl", type=click.Path(path_type=Path), help="Rows are added.")
@click.option("--figure", default=schedule_figure.PATH, type=click.Path(path_type=Path), help="Of the comparison.")
def main(
    bundle: Path,
    voices: Path,
    judge: Path,
    assets: Path,
    group: str,
    names: Sequence[str],
    pictures: Path | None,
    output: Path,
    figure: Path,
) -> None:
    """Run each candidate with every voice, and write a row for each."""
    candidates = {name: CANDIDATES[group][name] for name in names} if names else CANDIDATES[group]
    speakers = chosen(held_out_speakers(assets, voices), SPEAKERS[group])
    most = max((candidate.steps for candidate in candidates.values()), default=1)
    trials = Trials(bundle, [voices / speaker.file for speaker in speakers], most)
    for name, candidate in candidates.items():
        row = measured(trials, candidate, speakers, judge, pictures and pictures / name.replace(" ", "_"))
        append(output, {"benchmark": "schedules", "speakers": group, "candidate": name, **row})
        last = row["shown"][-1]
        click.echo(f"{name}: similarity {row['similarity']}, agreement {last['agreement']}, skin {last['skin_change']}")
    schedule_figure.write(figure, read(output))


def chosen(speakers: Sequence[HeldOutSpeaker], which: slice) -> list[HeldOutSpeaker]:
    """As many women as men."""
    return [speaker for sex in SEXES for speaker in [each for each in speakers if each.sex == sex][which]]


def measured(
    trials: Trials, candidate: Candidate, speakers: Sequence[HeldOutSpeaker], judge: Path, pictures: Path | None
) -> Row:
    """What a candidate makes of the voices."""
    machine = Machine.here(torch.device("cpu"))
    schedule = Schedule.of(candidate.preset, trials.manifest.learning_rate)
    shown = sorted({0, *(max(1, int(share * candidate.steps)) for share in SHOWN)})
    runs = [trials.run(voice, schedule, candidate.steps, shown) for voice in range(len(trials))]
    curves = np.array([run.curve for run in runs])
    stops = [stop(run.curve) for run in runs]
    with tempfile.TemporaryDirectory() as folder:
        views = judged_views(runs, shown, speakers, judge, pictures or Path(folder))
    return {
        "bundle": trials.manifest.name,
        "voices": len(trials),
        "steps": candidate.steps,
        "whole": candidate.whole,
        "schedule": asdict(schedule),
        "similarity": significant(curves[:, -1].mean()),
        "similarity_of_each": [round(float(value), 4) for value in curves[:, -1]],
        "similarity_told": significant(curves[:, -2].mean()),
        "curve": [round(float(value), 4) for value in curves.mean(axis=0)],
        "stopped": {
            "steps": significant(float(np.mean(stops))),
            "similarity": significant(float(np.mean([run.curve[at] for run, at in zip(runs, stops, strict=True)]))),
        },
        "shown": views,
        "ms_per_step": Spread.of([time for run in runs for time in run.step_milliseconds]).as_row(),
        "machine": asdict(machine),
    }


def stop(curve: Sequence[float]) -> int:
    """The step at which a rule that watches the similarity would stop: it has all but ceased to rise."""
    # The first step moves nothing, for its learning rate is 0.
    for step in range(1 + PATIENCE, len(curve)):
        if curve[step] - curve[step - PATIENCE] < STALLED:
            return step
    return len(curve) - 1


def judged_views(
    runs: Sequence[Trial], shown: Sequence[int], speakers: Sequence[HeldOutSpeaker], judge: Path, folder: Path
) -> list[Row]:
    """What an outside model, and the eye, say of the faces after each of the `shown` steps."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{speaker.speaker}_{step}.png" for step in shown for speaker in speakers]
    for path, face in zip(paths, [run.faces[step] for step in shown for run in runs], strict=True):
        path.write_bytes(face)
    judged = judge_faces(judge, paths)
    return [
        _view(step, runs, speakers, judged[place * len(runs) : (place + 1) * len(runs)])
        for place, step in enumerate(shown)
    ]


def _view(step: int, runs: Sequence[Trial], speakers: Sequence[HeldOutSpeaker], judged: Sequence[Judgement]) -> Row:
    right = [
        one.probability if one.sex == speaker.sex else 1 - one.probability
        for one, speaker in zip(judged, speakers, strict=True)
    ]
    change = [skin_luminance(run.faces[step]) - skin_luminance(run.faces[0]) for run in runs]
    return {
        "step": step,
        "agreement": sum(share > 0.5 for share in right),
        "probability": significant(float(np.mean(right))),
        "skin_change": significant(float(np.abs(change).mean())),
        "youngest": min(one.age for one in judged),
    }


if __name__ == "__main__":
    main()
