"""Evaluation of a demo bundle on its held-out speakers: sex agreement, change of skin luminance, diversity."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from voicestyle.evaluation.agreement import Agreement
from voicestyle.evaluation.figure import write_figure
from voicestyle.evaluation.generate import FacePair, generate_pairs
from voicestyle.evaluation.held_out import HeldOutSpeaker, held_out_speakers
from voicestyle.evaluation.judge import Judgement, judge_faces
from voicestyle.evaluation.skin import skin_luminance
from voicestyle.pipeline import Pipeline

_FIGURE_PAIRS = 8


@dataclass(frozen=True)
class DemoEvaluation:
    """Paths and options of one evaluation.

    bundle, assets: the bundle, and the folder of its encoders.json. voices: folder of recordings. judge: folder of
    `install_judge`. output: folder for the PNGs and report.json. figure: JPEG to write with the first and last faces of
    eight speakers. steps: optimisation steps; None takes the bundle's default.
    """

    bundle: Path
    assets: Path
    voices: Path
    judge: Path
    output: Path
    figure: Path | None = None
    steps: int | None = None
    seed: int = 0

    def run(self, progress: Callable[[range], Iterable[int]]) -> dict[str, Any]:
        """Generate, judge and measure the faces; write and return the report.

        Raises FileNotFoundError for a missing recording, JudgeError when the judge fails.
        """
        speakers = held_out_speakers(self.assets, self.voices)
        pipeline = Pipeline.load(self.bundle)
        voices = [self.voices / speaker.file for speaker in speakers]
        pairs = generate_pairs(pipeline, voices, progress, steps=self.steps, seed=self.seed)
        paths = self._write_faces(speakers, pairs)
        judged = judge_faces(self.judge, [path for both in paths for path in both])
        firsts, lasts = judged[::2], judged[1::2]
        if self.figure:
            write_figure(self.figure, _of_both_sexes(speakers, pairs))
        report = self._report(speakers, pairs, firsts, lasts)
        text = json.dumps(report, indent=2) + "\n"
        (self.output / "report.json").write_text(text, encoding="utf-8")
        return report

    def _write_faces(self, speakers: list[HeldOutSpeaker], pairs: list[FacePair]) -> list[tuple[Path, Path]]:
        self.output.mkdir(parents=True, exist_ok=True)
        paths: list[tuple[Path, Path]] = []
        for speaker, pair in zip(speakers, pairs, strict=True):
            first, last = (self.output / f"{speaker.speaker}_{which}.png" for which in ("first", "last"))
            first.write_bytes(pair.first.image)
            last.write_bytes(pair.last.image)
            paths.append((first, last))
        return paths

    def _report(
        self,
        speakers: list[HeldOutSpeaker],
        pairs: list[FacePair],
        firsts: list[Judgement],
        lasts: list[Judgement],
    ) -> dict[str, Any]:
        sexes = [speaker.sex for speaker in speakers]
        first, last = (Agreement.of(sexes, [each.sex for each in judged]) for judged in (firsts, lasts))
        before = np.array([skin_luminance(pair.first.image) for pair in pairs])
        after = np.array([skin_luminance(pair.last.image) for pair in pairs])
        rows = [
            {
                "speaker": speaker.speaker,
                "sex": speaker.sex,
                "first": [one.sex, one.probability, one.age],
                "last": [two.sex, two.probability, two.age],
                "similarity": [round(pair.last.first_similarity, 4), round(pair.last.similarity, 4)],
                "skin": [round(float(dark), 1), round(float(light), 1)],
                "prototypes": pair.last.prototypes,
            }
            for speaker, pair, one, two, dark, light in zip(speakers, pairs, firsts, lasts, before, after, strict=True)
        ]
        return {
            "speakers": len(speakers),
            "steps": pairs[0].last.settings.steps,
            "agreement": round(last.share, 4),
            "confusion": last.table,
            "agreement_of_first_faces": round(first.share, 4),
            "confusion_of_first_faces": first.table,
            "skin_luminance_change": {
                "mean": round(float((after - before).mean()), 2),
                "mean_absolute": round(float(np.abs(after - before).mean()), 2),
                "largest_absolute": round(float(np.abs(after - before).max()), 2),
                "spread_of_first_faces": round(float(before.std()), 2),
            },
            "similarity": {
                "first": round(float(np.mean([pair.last.first_similarity for pair in pairs])), 4),
                "last": round(float(np.mean([pair.last.similarity for pair in pairs])), 4),
            },
            "youngest_last_face": min(each.age for each in lasts),
            "distinct_prototype_sets": len({tuple(sorted(pair.last.prototypes)) for pair in pairs}),
            "rows": rows,
        }


def _of_both_sexes(speakers: list[HeldOutSpeaker], pairs: list[FacePair]) -> list[FacePair]:
    """The first four women's and the first four men's pairs."""
    chosen: list[FacePair] = []
    for sex in ("F", "M"):
        of_sex = [pair for speaker, pair in zip(speakers, pairs, strict=True) if speaker.sex == sex]
        chosen += of_sex[: _FIGURE_PAIRS // 2]
    return chosen
