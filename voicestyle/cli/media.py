"""`voicestyle frames` and `voicestyle log-mels`: what training and frontal replacement read, from whole folders."""

import multiprocessing
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path

import click
import numpy as np
from PIL import Image
from tqdm import tqdm

from cmpc2 import AudioError, decode, log_mel, speech_only
from voicestyle.video_frames import Selection, VideoError, read_frames, require_av

VIDEOS = frozenset({".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv"})
RECORDINGS = frozenset({".aif", ".aiff", ".au", ".flac", ".mp3", ".oga", ".ogg", ".opus", ".wav"})
JPEG_QUALITY = 95
CHUNK = 4  # inputs that a process gets at a time


class UnreadableError(ValueError):
    """An input file that cannot be opened."""


INPUT = click.Path(exists=True, path_type=Path)
OUTPUT = click.Path(file_okay=False, path_type=Path)
JOBS = click.option("--jobs", default=1, show_default=True, type=click.IntRange(1), help="Processes at a time.")


@click.command()
@click.argument("videos", nargs=-1, required=True, type=INPUT)
@click.option("-o", "--output", required=True, type=OUTPUT, help="The folder for the frames.")
@click.option("--count", type=click.IntRange(1), help="Frames of each video, evenly spaced.  [default: 8]")
@click.option("--every", type=click.FloatRange(0, min_open=True), help="Instead, a frame every so many seconds.")
@click.option(
    "--format",
    "suffix",
    default="jpg",
    show_default=True,
    type=click.Choice(["jpg", "png"]),
    help="Of the image files.",
)
@click.option("--force", is_flag=True, help="Read videos again whose frames are there.")
@JOBS
def frames(
    videos: tuple[Path, ...], output: Path, count: int | None, every: float | None, suffix: str, force: bool, jobs: int
) -> None:
    """Take frames out of VIDEOS, files or folders, for `voicestyle bank build`.

    A video NAME/1.6/VIDEO.mp4 in a folder becomes NAME/1.6/VIDEO/000123.jpg, where 123 is the frame's number in the
    video. A video's frames are written whole or not at all, so an interrupted command continues where it was. A video
    that cannot be used has a line with the reason, the others are read, and the exit code is 1.
    """
    if count is not None and every is not None:
        raise click.UsageError("--count and --every exclude each other")
    try:
        selection = Selection(seconds=every) if every is not None else Selection(count=count or 8)
        require_av()
    except ValueError as error:  # VideoError is one, too
        raise click.UsageError(str(error)) from None
    _convert(_targets(videos, VIDEOS, output, ""), partial(_write_frames, selection, suffix), force, jobs, "video")


@click.command()
@click.argument("recordings", nargs=-1, required=True, type=INPUT)
@click.option("-o", "--output", required=True, type=OUTPUT, help="The folder for the .npy files.")
@click.option("--force", is_flag=True, help="Convert recordings again whose file is there.")
@JOBS
def log_mels(recordings: tuple[Path, ...], output: Path, force: bool, jobs: int) -> None:
    """Convert RECORDINGS, files or folders, to the log-mels that CMPC is trained on.

    A recording NAME/VIDEO/00001.wav in a folder becomes NAME/VIDEO/00001.npy: speech only, float32 [T, 64], a frame
    every 10 ms, each band normalised over time. An interrupted command continues where it was. A recording that cannot
    be used has a line with the reason, the others are converted, and the exit code is 1.
    """
    _convert(_targets(recordings, RECORDINGS, output, ".npy"), _write_log_mel, force, jobs, "recording")


def _targets(inputs: tuple[Path, ...], suffixes: frozenset[str], output: Path, suffix: str) -> dict[Path, Path]:
    """Each input file, sorted within its folder, with its output: the path in the folder, with another suffix."""
    targets: dict[Path, Path] = {}
    for given in inputs:
        if given.is_dir():
            found = [
                path for path in sorted(given.rglob("[!.]*")) if path.suffix.lower() in suffixes and path.is_file()
            ]
            if not found:
                raise click.UsageError(f"{given} must have files of the types {', '.join(sorted(suffixes))}")
            targets |= {path: output / path.relative_to(given).with_suffix(suffix) for path in found}
        else:
            targets[given] = output / f"{given.stem}{suffix}"
    taken: dict[Path, Path] = {}
    for path, target in targets.items():
        if target in taken:
            raise click.UsageError(f"two inputs must not have the same output, {taken[target]} and {path}: {target}")
        taken[target] = path
    return targets


Write = Callable[[Path, Path], None]
"""From an input file to an output that does not exist yet. It is passed to other processes."""


def _convert(targets: dict[Path, Path], write: Write, force: bool, jobs: int, unit: str) -> None:
    """Write the targets that are missing, or all. Exits with 1 if an input cannot be used."""
    pending = {path: target for path, target in targets.items() if force or not target.exists()}
    failed = 0
    with tqdm(total=len(pending), unit=unit, leave=False, disable=None) as bar:
        for path, reason in zip(pending, _reasons(pending, write, jobs), strict=True):
            bar.update()
            if reason is not None:
                failed += 1
                bar.write(f"{path}: {reason}", file=sys.stderr)
    kept, written = len(targets) - len(pending), len(pending) - failed
    click.echo(f"{written} of {len(targets)} {unit}s converted, {kept} were there, {failed} cannot be used")
    if failed:
        raise SystemExit(1)


def _reasons(pending: dict[Path, Path], write: Write, jobs: int) -> Iterator[str | None]:
    """For each of `pending`, in order, why it cannot be used, or None once it is written."""
    convert = partial(_convert_one, write)
    if jobs == 1 or len(pending) < 2:
        yield from map(convert, pending.keys(), pending.values())
        return
    # A fork would copy locks that threads of torch or FFmpeg hold.
    with ProcessPoolExecutor(min(jobs, len(pending)), multiprocessing.get_context("spawn")) as pool:
        try:
            yield from pool.map(convert, pending.keys(), pending.values(), chunksize=CHUNK)
        except BrokenProcessPool:
            raise click.ClickException("a worker process died; finished files are kept, run it again") from None
        finally:
            pool.shutdown(cancel_futures=True)


def _convert_one(write: Write, path: Path, target: Path) -> str | None:
    """Write a draft, which then replaces the target. Returns why `path` cannot be used, or None."""
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        _check_readable(path)
        write(path, draft)
        _remove(target)
        draft.replace(target)
    except (AudioError, UnreadableError, VideoError) as error:
        return str(error)
    finally:
        _remove(draft)
    return None


def _write_frames(selection: Selection, suffix: str, video: Path, draft: Path) -> None:
    draft.mkdir()
    for index, pixels in read_frames(video, selection):
        Image.fromarray(pixels).save(draft / f"{index:06d}.{suffix}", quality=JPEG_QUALITY)


def _write_log_mel(recording: Path, draft: Path) -> None:
    energies = log_mel(speech_only(decode(recording)), min_frames=1)[0]
    with draft.open("wb") as file:
        np.save(file, np.ascontiguousarray(energies.T))


def _check_readable(path: Path) -> None:
    """Raise UnreadableError for an input that cannot be opened, unlike an output file, for which the command ends."""
    try:
        path.open("rb").close()
    except OSError as error:
        raise UnreadableError(f"must be readable: {error.strerror}") from None


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
