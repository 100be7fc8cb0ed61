"""An independent estimate of a face's sex and age, by the network of the npm package `@vladmandic/face-api`.

The network took no part in the training: it neither labelled nor chose a training face. `voicestyle/assets/face_judge`
holds the Node program and its pinned packages.
"""

import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from voicestyle.evaluation.errors import EvaluationError

PROGRAM = "judge.mjs"
SOURCE = Path(__file__).parents[1] / "assets" / "face_judge"


class JudgeError(EvaluationError):
    """The judge could not be installed, or did not judge every face; the message ends with its output."""


@dataclass(frozen=True)
class Judgement:
    """sex: F or M. probability: of that sex, 0.5 to 1. age: years."""

    sex: str
    probability: float
    age: float


def judge_name() -> str:
    """The network and its version, for the report."""
    package = json.loads((SOURCE / "package.json").read_text(encoding="utf-8"))
    return f"age and sex network of @vladmandic/face-api {package['dependencies']['@vladmandic/face-api']}"


def install_judge(folder: Path) -> None:
    """Copy the judge to `folder` and let npm install its packages there (330 MB), where they are missing.

    Raises JudgeError without npm or when the installation fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in (PROGRAM, "package.json"):
        shutil.copy(SOURCE / name, folder / name)
    _run(folder, "npm", "install", "--silent", "--ignore-scripts", "--no-audit", "--no-fund")


def judge_faces(folder: Path, faces: Sequence[Path]) -> list[Judgement]:
    """Judge PNG files of aligned faces with the judge installed in `folder`; judgements in the order of `faces`.

    Raises JudgeError when the judge fails or its output does not have one judgement per face.
    """
    output = _run(folder, "node", PROGRAM, *(str(face.resolve()) for face in faces))
    try:
        judged = [
            Judgement(str(row["sex"]), round(float(row["probability"]), 3), round(float(row["age"]), 1))
            for row in json.loads(output)
        ]
    except (ValueError, TypeError, KeyError) as error:
        raise JudgeError(f"the judge must print a JSON array of judgements; got {output[-400:]!r}") from error
    if len(judged) != len(faces):
        raise JudgeError(f"the judge must judge all {len(faces)} faces; got {len(judged)} judgements")
    return judged


def _run(folder: Path, *command: str) -> str:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise JudgeError(f"the judge needs {command[0]} (Node.js) on PATH") from error
    if done.returncode:
        raise JudgeError(f"{command[0]} {command[1]} failed in {folder}: {(done.stderr or done.stdout).strip()[-400:]}")
    return done.stdout
