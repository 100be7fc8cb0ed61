"""Losses and learning rate as TensorBoard scalars."""

import importlib
from pathlib import Path
from typing import Any

from voicestyle.training.errors import TrainingError
from voicestyle.training.trainer import Losses


class Scalars:
    """Writes scalars to `folder`: `step/NAME` for every step and `epoch/NAME` for the mean losses of an epoch.

    step: the first one of this run; TensorBoard hides what an interrupted run wrote for it and later ones. Raises
    TrainingError without TensorBoard.
    """

    def __init__(self, folder: Path, step: int = 0) -> None:
        try:
            module: Any = importlib.import_module("torch.utils.tensorboard")
        except ImportError as error:
            raise TrainingError("TensorBoard is missing: pip install 'voicestyle[train]'") from error
        self._writer: Any = module.SummaryWriter(str(folder), purge_step=step)

    def step(self, step: int, losses: Losses) -> None:
        """Write the losses of a step."""
        self._write("step", step, losses)

    def epoch(self, step: int, losses: Losses) -> None:
        """Write the mean losses of an epoch, whose last step is `step`, and flush the file."""
        self._write("epoch", step, losses)
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()

    def _write(self, group: str, step: int, losses: Losses) -> None:
        for name, value in losses.items():
            self._writer.add_scalar(f"{group}/{name}", value, step)
