"""Frontal replacement: for each training video, the photograph of the same person that its frames resemble most.

Frames of videos invert badly: they are small, seen from the side, badly aligned. As published, a video is therefore
represented by a photograph: the one whose CLIP image feature has the largest dot product with a frame of the video,
over all photographs of the person and all frames. Features are unit vectors here. Any face network can replace CLIP.
"""

import hashlib
import os
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from voicestyle.face_networks import FaceNetwork

EXTENSIONS = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".webp"})

Read = Callable[[Path], NDArray[np.uint8] | None]
"""A file to the RGB picture [H, W, 3] that the network takes, aligned if it needs that; None for an unusable file."""


@dataclass(frozen=True)
class Replacement:
    """The photograph that stands for a video. reason: why there is none, else None.

    similarity: dot product of the unit vectors of `photograph` and `frame`, −1 to 1.
    """

    video: str
    photograph: Path | None = None
    frame: Path | None = None
    similarity: float | None = None
    reason: str | None = None


def frames_by_video(folder: Path, levels: int | None = None) -> dict[str, list[Path]]:
    """The frames in FOLDER/NAME/…/VIDEO/FRAME.jpg by their video, the path `NAME/…/VIDEO`; both sorted.

    levels: the number of folders in a video's path, where the frames are further below: 2 for frames of the clips
    NAME/VIDEO/CLIP.mp4 as VoxCeleb has them. By default, each folder with frames is a video.
    """
    return _by_key(folder, lambda parents: "/".join(parents[:levels]) if len(parents) >= (levels or 2) else None)


def photographs_by_person(folder: Path) -> dict[str, list[Path]]:
    """The photographs in FOLDER/NAME/…, at any depth, by NAME; both sorted."""
    return _by_key(folder, lambda parents: parents[0] if parents else None)


def person_of(video: str) -> str:
    """The person NAME of a video `NAME/…/VIDEO`."""
    return video.split("/", 1)[0]


class FeatureCache:
    """Unit vectors of image files, computed once and kept in `folder`, a file for each person.

    network: computes the vectors; files of another network are not used. read: see `Read`. reader: a name for `read`,
    since another reader can give other pixels. batch: images at a time. Every batch has this size, filled up with
    zeros, so that a vector does not depend on which files are new. A file counts as changed when its path, size or time
    of modification does.
    """

    def __init__(self, folder: Path, network: FaceNetwork, read: Read, reader: str, batch: int = 8) -> None:
        if batch < 1:
            raise ValueError(f"a batch must have at least 1 image, got {batch}")
        self.network = network
        self._read, self._batch = read, batch
        self._folder = folder / _fingerprint(network, reader, batch)

    def features(self, person: str, paths: Sequence[Path]) -> list[NDArray[np.float32] | None]:
        """A unit vector [E] for each of `paths`, or None where the file is unusable.

        Interrupted, it keeps nothing of this person; memory is bounded by one batch of images.
        """
        keys = [_key(path) for path in paths]
        known = self._load(person)
        missing = {key: path for key, path in zip(keys, paths, strict=True) if key and key not in known}
        if missing:
            known |= self._compute(missing)
            self._store(person, known)
        return [known.get(key) if key else None for key in keys]

    def _compute(self, files: Mapping[str, Path]) -> dict[str, NDArray[np.float32] | None]:
        computed: dict[str, NDArray[np.float32] | None] = {}
        prepared: dict[str, Tensor] = {}
        for number, (key, path) in enumerate(files.items(), start=1):
            computed[key] = None
            pixels = self._read(path)
            if pixels is not None:
                prepared[key] = self.network.prepare(pixels)
            if prepared and (len(prepared) == self._batch or number == len(files)):
                computed |= zip(prepared, self._encode(list(prepared.values())), strict=True)
                prepared = {}
        return computed

    @torch.inference_mode()
    def _encode(self, images: list[Tensor]) -> list[NDArray[np.float32]]:
        parameter = next(self.network.parameters())
        batch = torch.zeros(self._batch, *images[0].shape)
        batch[: len(images)] = torch.stack(images)
        features = self.network(batch.to(parameter.device, parameter.dtype))[: len(images)]
        return list(F.normalize(features.float(), dim=1).cpu().numpy())

    def _path(self, person: str) -> Path:
        return self._folder / f"{quote(person, safe='')}.npz"

    def _load(self, person: str) -> dict[str, NDArray[np.float32] | None]:
        try:
            with np.load(self._path(person), allow_pickle=False) as stored:
                keys, usable, features = stored["keys"], stored["usable"], stored["features"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return {}  # absent, or damaged and computed again
        return {str(key): row if good else None for key, good, row in zip(keys, usable, features, strict=True)}

    def _store(self, person: str, known: Mapping[str, NDArray[np.float32] | None]) -> None:
        features = np.zeros((len(known), self.network.embedding_dim), np.float32)
        for row, feature in zip(features, known.values(), strict=True):
            if feature is not None:
                row[:] = feature
        usable = np.array([feature is not None for feature in known.values()])
        path = self._path(person)
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            with draft.open("wb") as file:
                np.savez(file, keys=np.array(list(known)), usable=usable, features=features)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)


def replace_frames(
    videos: Mapping[str, Sequence[Path]], photographs: Mapping[str, Sequence[Path]], cache: FeatureCache
) -> Iterator[Replacement]:
    """The replacement of each video, person by person in the order of their names, videos sorted within a person.

    videos: frames by video `NAME/…/VIDEO`. photographs: by NAME. Of equal similarities, the photograph with the first
    path counts, then the frame with the first path. A video without photograph has a reason; the rest goes on.
    """
    by_person: dict[str, list[str]] = defaultdict(list)
    for video in sorted(videos):
        by_person[person_of(video)].append(video)
    for person, theirs in by_person.items():
        choices = sorted(photographs.get(person, ()))
        frames = {video: sorted(videos[video]) for video in theirs}
        paths = [*choices, *(path for each in frames.values() for path in each)]
        features = dict(zip(paths, cache.features(person, paths), strict=True)) if choices else {}
        for video in theirs:
            yield _replacement(video, person, choices, frames[video], features)


def _replacement(
    video: str,
    person: str,
    photographs: Sequence[Path],
    frames: Sequence[Path],
    features: Mapping[Path, NDArray[np.float32] | None],
) -> Replacement:
    usable = [(path, feature) for path in photographs if (feature := features[path]) is not None]
    if not usable:
        return Replacement(video, reason=f"{person} must have a usable photograph, got {len(photographs)} files")
    seen = [(path, feature) for path in frames if (feature := features[path]) is not None]
    if not seen:
        return Replacement(video, reason=f"a video must have a usable frame, got {len(frames)} files")
    matrix = np.stack([feature for _, feature in usable]).astype(np.float64)
    # A product of matrices could round equal rows differently, by their position.
    similarities = np.stack([(matrix * feature).sum(axis=1) for _, feature in seen], axis=1)
    best, frame = np.unravel_index(int(similarities.argmax()), similarities.shape)
    return Replacement(video, usable[best][0], seen[frame][0], float(similarities[best, frame]))


def _by_key(folder: Path, key_of: Callable[[tuple[str, ...]], str | None]) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        hidden = any(part.startswith(".") for part in parts)  # also what an interrupted command left
        key = None if hidden else key_of(parts[:-1])
        if key is not None and path.suffix.lower() in EXTENSIONS and path.is_file():
            found[key].append(path)
    return dict(sorted(found.items()))


def _key(path: Path) -> str | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return f"{path}|{status.st_size}|{status.st_mtime_ns}"


def _fingerprint(network: FaceNetwork, reader: str, batch: int) -> str:
    digest = hashlib.sha256(f"{network.name}|{reader}|{batch}".encode())
    for name, value in network.state_dict().items():
        digest.update(name.encode() + value.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
