"""Encoders of a bundle or of a CMPC checkpoint, over folders of recordings, log-mels and images."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from cmpc2 import ResNetConfig, audio_preprocess, decode, load, load_voice, speech_only, visual_preprocess
from cmpc2.audio import SAMPLE_RATE
from voicestyle.bundle import Bundle, sha256
from voicestyle.evaluation.embeddings import Embeddings, read_arrays, write_arrays
from voicestyle.evaluation.errors import EvaluationError
from voicestyle.evaluation.keys import FACE_SUFFIXES, LOG_MEL_SUFFIX, VOICE_SUFFIXES
from voicestyle.manifest import FRONT_END
from voicestyle.torchscript import CompiledModule
from voicestyle.voices import voice_features

Progress = Callable[[Sequence[str]], Iterable[str]]
SAVE_EVERY = 1000  # files, so that an interrupted run loses little
UNUSABLE = (ValueError, OSError, SyntaxError, Image.DecompressionBombError)  # AudioError is a ValueError


@dataclass(frozen=True)
class Encoders:
    """A voice and a face encoder. name: for the report. digest: changes with the weights and the input size.

    encode_voice: [1, 1, C, T] to [1, E]. encode_face: [1, 3, S, S] in [-1, 1] to [1, E]. front_end: of a bundle that
    has its own, on `device`; None is CMPC's log-mel, C = 64. min_speech_seconds: what an own front end is made for.
    """

    name: str
    digest: str
    face_size: int
    device: str
    encode_voice: Callable[[Tensor], Tensor]
    encode_face: Callable[[Tensor], Tensor]
    front_end: CompiledModule | None = None
    min_speech_seconds: float = 0.0

    @property
    def voice_suffixes(self) -> Sequence[str]:
        """Suffixes of the files of a voice, the first choice first. An own front end needs recordings."""
        return VOICE_SUFFIXES if self.front_end is None else sorted(VOICE_SUFFIXES, key=LOG_MEL_SUFFIX.__eq__)

    def embed(self, path: Path) -> NDArray[np.float32]:
        """The embedding [E] of a recording, a log-mel (.npy, [T, 64]) or an image, each alone.

        Raises one of UNUSABLE for an unusable file.
        """
        if path.suffix.lower() in FACE_SUFFIXES:
            features, encode = visual_preprocess(self.face_size)(path), self.encode_face
        elif self.front_end is not None:
            features, encode = self._own_features(path, self.front_end), self.encode_voice
        elif path.suffix.lower() == LOG_MEL_SUFFIX:
            features, encode = load_voice()(path), self.encode_voice
        else:
            features, encode = audio_preprocess()(path), self.encode_voice
        with torch.inference_mode():
            return encode(features[None].to(self.device))[0].float().cpu().numpy()

    def _own_features(self, path: Path, front_end: CompiledModule) -> Tensor:
        if path.suffix.lower() == LOG_MEL_SUFFIX:
            raise ValueError("a bundle with its own front end takes recordings, received a log-mel (.npy)")
        speech = speech_only(decode(path))
        if (seconds := len(speech) / SAMPLE_RATE) < self.min_speech_seconds:
            raise ValueError(f"at least {self.min_speech_seconds:g} s of speech are needed, received {seconds:.2f} s")
        return voice_features(speech, front_end, self.device)


def bundle_encoders(folder: Path, device: str = "cpu") -> Encoders:
    """The encoders of a bundle, in float32. Raises BundleError."""
    bundle = Bundle.load(folder, device)
    manifest = bundle.manifest
    digest = manifest.files["voice_encoder.pt"] + manifest.files["face_encoder.pt"] + str(manifest.encoder_size)
    digest += manifest.files.get(FRONT_END, "")
    return Encoders(
        f"{manifest.name}@{manifest.version}",
        digest,
        manifest.encoder_size,
        device,
        bundle.voice_encoder,
        bundle.face_encoder,
        bundle.front_end,
        manifest.limits.min_speech_seconds,
    )


def checkpoint_encoders(
    path: Path, face_size: int, device: str = "cpu", config: ResNetConfig | None = None
) -> Encoders:
    """The encoders of a CMPC checkpoint. config: size of both. Raises CheckpointError, OSError."""
    model = load(path, config, config).to(device)
    digest = sha256(path)
    name = f"{path.name}, sha256 {digest[:12]}"
    return Encoders(name, digest + str(face_size), face_size, device, model.encode_voice, model.encode_face)


def embed_folder(
    encoders: Encoders, folder: Path, kind: str, keys: Sequence[str], cache: Path, progress: Progress
) -> Embeddings:
    """Embed the files of `folder` that have one of `keys`; keys without a file are left out.

    kind: voice or face. cache: folder of the embeddings that are kept; a file is embedded again when its size or its
    time of change differs. progress: wraps the keys that must be computed, as tqdm does.

    Raises EvaluationError if `folder` is not a folder or has no usable file.
    """
    if not folder.is_dir():
        raise EvaluationError(f"{kind}s must be a folder or a .npz file, received {folder}")
    suffixes = encoders.voice_suffixes if kind == "voice" else FACE_SUFFIXES
    paths = {key: path for key in dict.fromkeys(keys) if (path := _file_of(folder, key, suffixes))}
    stamps = {key: _stamp(path) for key, path in paths.items()}
    place = hashlib.sha256(f"{encoders.digest} {kind} {folder.resolve()}".encode()).hexdigest()[:16]
    store = _Store(cache / f"{kind}-{place}.npz")
    unusable: dict[str, str] = {}
    try:
        for count, key in enumerate(progress([key for key in paths if not store.holds(key, stamps[key])]), 1):
            try:
                store.add(key, encoders.embed(paths[key]), stamps[key])
            except UNUSABLE as error:
                # The report need not tell where the folder is.
                unusable[key] = str(error).split("\n")[0].replace(str(paths[key]), paths[key].name)
            if count % SAVE_EVERY == 0:
                store.save()
    finally:
        store.save()
    known = [key for key in paths if key not in unusable]
    if not known:
        first, reason = next(iter(unusable.items()), (next(iter(keys), "none"), "no file"))
        raise EvaluationError(f"{folder} must have a usable {kind} for the keys of the lists; {first!r}: {reason}")
    vectors = np.array([store.vectors[key] for key in known])
    return Embeddings.of(f"{encoders.name} on {folder.name}", known, vectors, unusable)


def _file_of(folder: Path, key: str, suffixes: Sequence[str]) -> Path | None:
    return next((path for suffix in suffixes if (path := folder / f"{key}{suffix}").is_file()), None)


def _stamp(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


class _Store:
    """The embeddings of one cache file. A damaged file is computed again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._changed = False
        self.vectors: dict[str, NDArray[np.float32]] = {}
        self._stamps: dict[str, tuple[int, int]] = {}
        with suppress(EvaluationError, FileNotFoundError):
            keys, vectors, stamps = read_arrays(path)
            if stamps is not None and stamps.shape == (len(keys), 2):
                self.vectors = dict(zip(keys, vectors.astype(np.float32), strict=True))
                self._stamps = {key: (int(row[0]), int(row[1])) for key, row in zip(keys, stamps, strict=True)}

    def holds(self, key: str, stamp: tuple[int, int]) -> bool:
        return self._stamps.get(key) == stamp

    def add(self, key: str, vector: NDArray[np.float32], stamp: tuple[int, int]) -> None:
        self.vectors[key], self._stamps[key] = vector, stamp
        self._changed = True

    def save(self) -> None:
        if self._changed:
            stamps = np.array(list(self._stamps.values()), np.int64)
            write_arrays(self._path, list(self.vectors), np.array(list(self.vectors.values())), stamps)
            self._changed = False
