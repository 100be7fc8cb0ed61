"""Measurements in processes of their own: the last line that one prints is its result, as JSON."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from voicestyle.archive import ROOT


class MeasurementError(Exception):
    """A process that ended without a result; the message is the last thing it said."""


def measure(module: str, arguments: Sequence[object], environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Run `python -m module arguments` from the repository's root, and return what it measured.

    Raises MeasurementError for a process that failed.
    """
    command = [sys.executable, "-W", "ignore", "-m", module, *map(str, arguments)]
    variables = dict(os.environ) | dict(environment or {})
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False)
    if done.returncode < 0:
        raise MeasurementError(f"ended by signal {-done.returncode}")
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        raise MeasurementError(said[-1].strip() if said else f"ended with status {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])
