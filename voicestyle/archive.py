"""`voicestyle.mar`: what TorchServe serves. It contains all it needs but the installed dependencies.

It holds the handler and its YAML, a bundle, and the parts of both packages that serving needs. TorchServe puts the
unpacked archive on the worker's path, so a worker runs the code of its archive, not the installed one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from msgspec.structs import replace

import cmpc2
from voicestyle import __version__
from voicestyle.bundle import verify_files
from voicestyle.devices import DeviceError, asked_device
from voicestyle.errors import ArchiveError
from voicestyle.manifest import MANIFEST, Manifest
from voicestyle.worker.service_config import SECTION, ServiceConfig

MODEL: Final = "voicestyle"  # TorchServe's name of the model, hence /predictions/voicestyle
PACKAGES: Final = (Path(cmpc2.__file__).parent, Path(__file__).parent)
# In a checkout these are links to the top-level files of the repository; a wheel holds copies of them.
TORCHSERVE_FILES: Final = Path(__file__).parent / "assets" / "torchserve"
HANDLER: Final = TORCHSERVE_FILES / "voicestyle_handler.py"
MODEL_CONFIG: Final = TORCHSERVE_FILES / "model_config.yaml"
# Parts of voicestyle that a worker never runs.
LEFT_OUT: Final = (
    *("assets", "bank_builder", "cli", "client", "evaluation", "face_networks", "inversion", "photographs"),
    *("published", "serving", "training", "voice_networks"),
    *("archive.py", "demo_bundle.py", "demo_encoders.py", "inverted_latents.py", "latent_embeddings.py"),
    *("mapper.py", "offline.py", "photo_bundle.py", "probe.py", "video_frames.py", "voice_conditions.py", "wheels.py"),
)
FINGERPRINT: Final = "fingerprint.json"


def build_archive(bundle: Path, archive: Path) -> Path:
    """Write `archive` (NAME.mar) from a bundle folder and return it. An older archive is replaced at the very end.

    Raises:
        BundleError: no bundle in the folder, or files that its manifest does not describe.
        ArchiveError: an invalid model config, or torch-model-archiver failed.
    """
    manifest = Manifest.read(bundle)
    verify_files(bundle, manifest)
    config = model_config()
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{archive.stem}-", dir=archive.parent) as scratch:
        extra, export, temporary = (Path(scratch) / name for name in ("extra", "export", "tmp"))
        for folder in (extra, export, temporary):
            folder.mkdir()
        for name, source in _code():
            _copy(source, extra / name)
        for name in (*manifest.file_names, MANIFEST):
            _copy(bundle / name, extra / "bundle" / name)
        # importlib.metadata reads the version from here, as it does in an installed package.
        metadata = extra / f"voicestyle-{__version__}.dist-info" / "METADATA"
        metadata.parent.mkdir()
        metadata.write_text(f"Metadata-Version: 2.1\nName: voicestyle\nVersion: {__version__}\n", encoding="utf-8")
        config_file = Path(scratch) / MODEL_CONFIG.name
        config_file.write_text(config, encoding="utf-8")
        (extra / FINGERPRINT).write_text(json.dumps({"sha256": _fingerprint(bundle)}), encoding="utf-8")
        command = [sys.executable, "-W", "ignore", "-m", "model_archiver.model_packaging"]
        command += ["--model-name", archive.stem, "--version", manifest.version]
        command += ["--archive-format", "zip-store"]
        command += ["--handler", str(HANDLER), "--config-file", config_file.name]
        # Relative paths: torch-model-archiver splits this argument at commas.
        command += ["--extra-files", extra.name, "--export-path", export.name]
        # It works in a folder of TMPDIR with a fixed name, which two builds at the same time would share.
        environment = os.environ | {"TMPDIR": str(temporary)}
        done = subprocess.run(command, cwd=scratch, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ArchiveError(f"torch-model-archiver failed: {done.stderr.strip()[-2000:]}")
        (export / f"{archive.stem}.mar").replace(archive)
    return archive


def model_config() -> str:
    """The archive's model config: the file `MODEL_CONFIG` with the `batchSize` that follows from its section.

    Raises ArchiveError for an invalid file, and for a batchSize in it that the batch and the queue can fill.
    """
    import yaml  # of the extra `serve`, as torch-model-archiver is

    text = MODEL_CONFIG.read_text(encoding="utf-8")
    try:
        config: dict[str, Any] = yaml.safe_load(text)
        if not isinstance(config, dict):
            raise ValueError(f"must be a mapping of names to values, got {config!r}")
        service = ServiceConfig.parse(config.get(SECTION))
        # The variable comes first, as in the worker.
        service = replace(service, device=asked_device(service.device))
    except (yaml.YAMLError, DeviceError, ValueError) as error:
        raise ArchiveError(f"{MODEL_CONFIG.name}: {' '.join(str(error).split())}") from None
    if "batchSize" not in config:
        why = f"requests passed at once: up to {service.most_admitted} in batch and queue, and some that are rejected"
        return f"{text.rstrip()}\n\nbatchSize: {service.batch_size}  # {why}\n"
    given = config["batchSize"]
    if not isinstance(given, int) or given <= service.most_admitted:
        rule = f"batchSize must be more than live_requests + queue, {service.most_admitted}, or be left out"
        raise ArchiveError(f"{MODEL_CONFIG.name}: {rule}, got {given!r}")
    return text


def is_current(archive: Path, bundle: Path) -> bool:
    """Whether both exist and `archive` was built from this bundle and this code. Raises as `model_config`."""
    try:
        with zipfile.ZipFile(archive) as opened:
            return json.loads(opened.read(FINGERPRINT))["sha256"] == _fingerprint(bundle)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):
        return False


def _code() -> Iterator[tuple[str, Path]]:
    """The code of both packages that a worker runs: name in the archive, path."""
    for package in PACKAGES:
        for path in sorted(package.rglob("*.py")):
            name = path.relative_to(package)
            if name.parts[0] not in LEFT_OUT:
                yield (package.name / name).as_posix(), path


def _fingerprint(bundle: Path) -> str:
    """A hash over all that goes into the archive; a bundle's manifest has the hashes of its files."""
    digest = hashlib.sha256((__version__ + model_config()).encode())
    others = ((path.name, path) for path in (HANDLER, bundle / MANIFEST))
    for name, path in (*_code(), *others):
        digest.update(f"{name}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
