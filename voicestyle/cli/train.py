"""`voicestyle train`: train CMPC's encoders on a folder of videos."""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm

from voicestyle.cli.devices import usable_device
from voicestyle.training.cmpc_training import CmpcTraining
from voicestyle.training.distributed import Ranks, process_group
from voicestyle.training.scalars import Scalars
from voicestyle.training.trainer import PRECISIONS, Losses
from voicestyle.training.training_options import TrainingOptions, changed, read_options
from voicestyle.training.videos import VideoTable, find_folders, read_videos

PATH = click.Path(path_type=Path)
log = logging.getLogger("voicestyle.train")


@click.command()
@click.option("--csv", "table", required=True, type=PATH, help="One row per video: VGGFace1 ID, video_id.")
@click.option("--data", type=PATH, help="Folder with the folders of voices and faces.")
@click.option("--voices", type=PATH, help="Recordings or log-mels, ID/VIDEO/*.  [default: in --data]")
@click.option("--faces", type=PATH, help="Frames NAME/1.6/VIDEO/* or photographs NAME/*.  [default: in --data]")
@click.option("-o", "--output", required=True, type=PATH, help="Folder for checkpoint, log and results.")
@click.option("--options", "file", type=PATH, help="JSON file with all options; those given here take precedence.")
@click.option("--epochs", type=int, help="Passes over the videos.  [default: 188]")
@click.option("--batch", type=int, help="Videos per step, over all processes.  [default: 128]")
@click.option("--image-size", type=int, help="Input of the face encoder in pixels, 224 or 256.  [default: 256]")
@click.option("--workers", type=int, help="Processes that read files, per training process.  [default: 4]")
@click.option("--precision", type=click.Choice(PRECISIONS), help="Number format of the encoders.  [default: float32]")
@click.option("--seed", type=int, help="Random seed.  [default: 0]")
@click.option("--augment", is_flag=True, default=None, help="Vary colour, light and position; mask parts of voices.")
@click.option("--skip-missing", is_flag=True, help="Leave out videos without recordings or images.")
@click.option("--tensorboard", is_flag=True, help="Write losses to OUTPUT/tensorboard.")
@click.option("--device", default="cpu", show_default=True, help="cpu or cuda.")
def train(
    table: Path,
    data: Path | None,
    voices: Path | None,
    faces: Path | None,
    output: Path,
    file: Path | None,
    skip_missing: bool,
    tensorboard: bool,
    device: str,
    **given: Any,
) -> None:
    """Train voice and face encoder with the objective of CMPC, without labels.

    \b
    An interrupted training continues when it is started again with the same output. With several processes:
      torchrun --nproc-per-node=2 -m voicestyle.cli train ...

    Writes cmpc.pth.tar, frame_memory.pth.tar and training.csv, which `voicestyle bundle published` reads.
    """
    options = _options(file, {name: value for name, value in given.items() if value is not None})
    if data:
        voices, faces = find_folders(data, voices, faces)
    if not (voices and faces):
        raise click.UsageError("give --data, or both --voices and --faces")
    with process_group(usable_device(device)) as ranks:
        videos = read_videos(table, voices, faces, skip_missing=skip_missing)
        output.mkdir(parents=True, exist_ok=True)
        handler = _log_to(output / "train.log", ranks)
        try:
            _run(CmpcTraining(videos, output, options, ranks), videos, tensorboard)
        finally:
            log.removeHandler(handler)
            handler.close()


def _options(file: Path | None, given: dict[str, Any]) -> TrainingOptions:
    places = {"epochs": "loop", "precision": "loop", "batch": "data", "image_size": "data", "workers": "data"}
    changes: dict[str, Any] = {}
    for name, value in given.items():
        (changes.setdefault(places[name], {}) if name in places else changes)[name] = value
    return changed(read_options(file) if file else TrainingOptions(), changes)


def _log_to(path: Path, ranks: Ranks) -> logging.Handler:
    """Log to `path`, in the first process only."""
    handler: logging.Handler = logging.FileHandler(path, encoding="utf-8") if ranks.is_first else logging.NullHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log.setLevel(logging.INFO)
    log.addHandler(handler)
    return handler


def _run(training: CmpcTraining, videos: VideoTable, tensorboard: bool) -> None:
    ranks, epochs = training.ranks, training.options.loop.epochs
    trainer = training.trainer()
    _say(
        ranks, f"{len(videos.videos)} videos, {videos.skipped} skipped; {ranks.world} processes on {ranks.device.type}"
    )
    _say(ranks, str(training.options))
    if trainer.epoch:
        _say(ranks, f"continuing after epoch {trainer.epoch}")
    first_step = trainer.epoch * trainer.source.steps_per_epoch
    scalars = Scalars(training.output / "tensorboard", first_step) if tensorboard and ranks.is_first else None
    bar = tqdm(total=epochs, initial=trainer.epoch, unit="epoch", disable=None if ranks.is_first else True)

    def report(epoch: int, losses: Losses) -> None:
        bar.update()
        _say(ranks, f"epoch {epoch}: " + ", ".join(f"{name} {value:.4g}" for name, value in losses.items()))

    def batches(loader: Iterable[Any]) -> Iterable[Any]:
        return tqdm(loader, "memory", unit="batch", disable=None)

    with bar:
        training.run(trainer, report, scalars, batches)
    if scalars:
        scalars.close()
    _say(ranks, f"wrote {training.output}")


def _say(ranks: Ranks, line: str) -> None:
    log.info("%s", line)
    if ranks.is_first:
        tqdm.write(line)
