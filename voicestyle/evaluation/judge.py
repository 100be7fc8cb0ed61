"""The second opinion on a face's sex: a Node program that prints name, sex, probability and age for each PNG.

It is the age and sex net of the npm package @vladmandic/face-api, which no training pair was made with.
"""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


class JudgeError(RuntimeError):
    """The judge is not installed, or did not judge every face; the message ends with what it printed."""


@dataclass(frozen=True)
class Judgement:
    """sex: F or M. probability: of that sex, 0.5 to 1. age: years."""

    sex: str
    probability: float
    age: float


def judge_faces(folder: Path, faces: Sequence[Path]) -> list[Judgement]:
    """The judgements of PNG files, in their order, by the judge installed (`npm install`) in `folder`.

    File names must differ. Raises JudgeError.
    """
    if not (folder / "judge.cjs").is_file() or not (folder / "node_modules").is_dir():
        raise JudgeError(
            f"the judge's folder must hold judge.cjs and, after npm install, node_modules; {folder} does not"
        )
    command = ["node", "judge.cjs", *(str(face.resolve()) for face in faces)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise JudgeError(f"the judge failed: {done.stderr.strip()[-400:]}")
    judged = parse_judgements(done.stdout)
    missing = [face.name for face in faces if face.name not in judged]
    if missing:
        raise JudgeError(f"the judge must judge every face; it left out {', '.join(missing[:5])}")
    return [judged[face.name] for face in faces]


def parse_judgements(text: str) -> dict[str, Judgement]:
    """By file name, from lines such as `face.png female 0.987 31.4`; other lines are passed over."""
    judged: dict[str, Judgement] = {}
    for line in text.splitlines():
        words = line.rsplit(maxsplit=3)
        if len(words) == 4 and words[1] in ("female", "male"):
            judged[words[0]] = Judgement(words[1][0].upper(), float(words[2]), float(words[3]))
    return judged
