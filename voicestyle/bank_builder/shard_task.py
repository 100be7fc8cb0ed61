"""The shard function: judge the photographs of a shard, let videos choose among them, invert, encode the results.

The same function runs in this process, in worker processes and as a Ray task. It depends on the files' contents and on
its tools alone, so that all of these give the same bytes.
"""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from voicestyle.bank_builder.errors import BankError
from voicestyle.bank_builder.plan import Group, Source, Video
from voicestyle.bank_builder.shard import (
    InvertedPhotograph,
    PhotographResult,
    Shard,
    VideoResult,
    encode,
    thumbnail,
)
from voicestyle.bundle import sha256
from voicestyle.inversion import Inversion
from voicestyle.photographs import Judged

Pixels = NDArray[np.uint8]


class Judge(Protocol):
    """`voicestyle.photographs.PhotographJudge`."""

    @property
    def name(self) -> str:
        """The detector."""
        ...

    def __call__(self, path: Path, /) -> Judged:
        """Judge one file; a bad file is a reason, not an error."""
        ...


class Invert(Protocol):
    """`voicestyle.inversion.Inverter`."""

    @property
    def loss_name(self) -> str:
        """The loss."""
        ...

    def invert(self, photographs: Iterable[tuple[str, Pixels]], /) -> Iterator[Inversion]:
        """Invert aligned photographs [256, 256, 3] with their keys; results come in the order in which they finish."""
        ...


class Chooser(Protocol):
    """Frontal replacement: chooses a photograph for a video."""

    @property
    def name(self) -> str:
        """The network that compares them."""
        ...

    def embed(self, photographs: Sequence[Pixels], /) -> NDArray[np.float32]:
        """Unit vectors [P, E] of aligned photographs."""
        ...

    def choose(self, photographs: NDArray[np.float32], frames: Sequence[Path], /) -> tuple[int, float] | None:
        """The row of `photographs` that is most similar to one of the frames, with their cosine.

        None if no frame can be read.
        """
        ...


@dataclass(frozen=True)
class Tools:
    """What a shard is made with. chooser: None for a build without videos."""

    judge: Judge
    inverter: Invert
    chooser: Chooser | None = None


@dataclass(frozen=True)
class Stored:
    """A file by its name and either its path on this machine or its content."""

    name: str
    path: Path | None
    content: bytes | None = None

    def with_content(self) -> "Stored":
        """The same file for another machine. Raises OSError."""
        return self if self.path is None else Stored(self.name, None, self.path.read_bytes())

    def stored_in(self, folder: Path) -> Path:
        """A path of the file: its own, or a copy of the content in `folder`."""
        if self.path is not None:
            return self.path
        copy = folder / self.name
        copy.write_bytes(self.content or b"")
        return copy


@dataclass(frozen=True)
class ShardTask:
    """One shard to do. plan: its sha256. photographs: the readable ones by key. frames: those of each video by key."""

    plan: str
    number: int
    groups: tuple[Group, ...]
    photographs: dict[str, Stored]
    frames: dict[str, tuple[Stored, ...]]

    def with_contents(self) -> "ShardTask":
        """The same task without paths, for a machine that does not see these files. Raises OSError."""
        return replace(
            self,
            photographs={key: file.with_content() for key, file in self.photographs.items()},
            frames={key: tuple(file.with_content() for file in files) for key, files in self.frames.items()},
        )


def run_shard(task: ShardTask, tools: Tools, on_result: Callable[[], None] = lambda: None) -> bytes:
    """Do the work of one shard and return the content of its file.

    on_result: called for every photograph when its result is known.

    Raises BankError for a file that no longer has the content it has in the plan.
    """
    done = {source.key: PhotographResult(source.key, {}, None) for group in task.groups for source in group.photographs}
    videos: list[VideoResult] = []

    def accepted() -> Iterator[tuple[str, Pixels]]:
        for group in task.groups:
            judged = _judged(group, task, tools.judge, done)
            kept = list(judged) if not group.videos else _chosen(group, task, dict(judged), tools.chooser, done, videos)
            for _ in range(len(group.photographs) - len(kept)):
                on_result()
            yield from kept

    for inversion in tools.inverter.invert(accepted()):
        result = done[inversion.key]
        if np.isfinite(inversion.latent).all():
            result.inverted = _recorded(inversion)
        else:
            result.rejected = "the inversion must end with a finite latent, it did not"
        on_result()
    return encode(Shard(task.plan, task.number, list(done.values()), _without_failed(videos, done)))


def _judged(
    group: Group, task: ShardTask, judge: Judge, done: dict[str, PhotographResult]
) -> Iterator[tuple[str, Pixels]]:
    """The kept photographs of a group with their aligned pixels; the results of all go to `done`."""
    for source in group.photographs:
        result = done[source.key]
        if source.unreadable:
            result.rejected = source.unreadable
            continue
        with tempfile.TemporaryDirectory() as folder:
            path = task.photographs[source.key].stored_in(Path(folder))
            _check_unchanged(source, path)
            judged = judge(path)
        result.figures = {name: _plain(value) for name, value in asdict(judged.figures).items()}
        result.rejected = judged.reason
        if judged.aligned is not None:
            result.aligned = thumbnail(judged.aligned)
            if judged.reason is None:
                yield source.key, judged.aligned


def _chosen(
    group: Group,
    task: ShardTask,
    kept: dict[str, Pixels],
    chooser: Chooser | None,
    done: dict[str, PhotographResult],
    videos: list[VideoResult],
) -> list[tuple[str, Pixels]]:
    """The photographs that a video chose, in the order of their keys; the results of the videos go to `videos`."""
    if chooser is None:
        raise ValueError("videos need a chooser")
    keys = list(kept)
    embeddings = chooser.embed(list(kept.values())) if keys else None
    for video in group.videos:
        result = _choice(video, task.frames[video.key], keys, embeddings, chooser)
        if result.photograph is not None:
            done[result.photograph].chosen_by += 1
        videos.append(result)
    return [(key, kept[key]) for key in keys if done[key].chosen_by]


def _choice(
    video: Video,
    frames: Sequence[Stored],
    keys: Sequence[str],
    embeddings: NDArray[np.float32] | None,
    chooser: Chooser,
) -> VideoResult:
    if not frames:
        return VideoResult(video.key, None, None, "there must be frames of the video, got none")
    if embeddings is None:
        return VideoResult(video.key, None, None, "there must be a usable photograph of the person, got none")
    with tempfile.TemporaryDirectory() as folder:
        found = chooser.choose(embeddings, [frame.stored_in(Path(folder)) for frame in frames])
    if found is None:
        return VideoResult(video.key, None, None, "a frame of the video must be readable, none is")
    row, similarity = found
    return VideoResult(video.key, keys[row], round(similarity, 6), None)


def _without_failed(videos: list[VideoResult], done: dict[str, PhotographResult]) -> list[VideoResult]:
    """Videos whose photograph could not be inverted get its reason."""
    return [
        video
        if video.photograph is None or done[video.photograph].inverted
        else VideoResult(video.key, None, video.similarity, done[video.photograph].rejected)
        for video in videos
    ]


def _recorded(inversion: Inversion) -> InvertedPhotograph:
    latent = np.ascontiguousarray(inversion.latent, dtype="<f4")
    return InvertedPhotograph(
        latent=latent.tobytes(),
        shape=latent.shape,
        image=thumbnail(inversion.image),
        losses={name: [float(value) for value in values] for name, values in inversion.losses.items()},
        psnr=float(inversion.psnr),
        identity=float(inversion.identity),
    )


def _plain(value: float | None) -> float | int | None:
    """The number without NumPy's type."""
    return value if value is None else int(value) if isinstance(value, int | np.integer) else float(value)


def _check_unchanged(source: Source, path: Path) -> None:
    if sha256(path) != source.sha256:
        raise BankError(f"photographs must not change during a build, {source.key!r} did: run again with --restart")
