"""`voicestyle.mar`: what TorchServe serves, self-contained but for the installed dependencies.

It holds the handler and its YAML, a bundle, and of both packages what serving needs. TorchServe puts the
unpacked archive on the worker's path, so an environment without this repository runs it.
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
from typing import Final

from voicestyle.bundle import verify_files
from voicestyle.errors import ArchiveError
from voicestyle.manifest import MANIFEST, Manifest

MODEL: Final = "voicestyle"  # TorchServe's name of the model, hence /predictions/voicestyle
ROOT: Final = Path(__file__).resolve().parent.parent
ARCHIVE: Final = ROOT / "model_store" / f"{MODEL}.mar"

HANDLER: Final = "handlers/voicestyle_handler.py"
MODEL_CONFIG: Final = "handlers/model_config.yaml"
PACKAGES: Final = ("cmpc2", "voicestyle")
# Parts of voicestyle that a server never runs.
LEFT_OUT: Final = frozenset(
    {"assets", "training", "evaluation", "cli", "client", "archive.py", "demo_bundle.py", "published", "serving"}
)
FINGERPRINT: Final = "fingerprint.json"


def build_archive(bundle: Path, archive: Path = ARCHIVE) -> Path:
    """Write `archive` (NAME.mar) for a bundle folder and return it; an older one is replaced at the very end.

    Raises:
        BundleError: no bundle in the folder, or not a whole one.
        ArchiveError: this installation lacks the handler's files, or torch-model-archiver failed.
    """
    manifest = Manifest.read(bundle)
    verify_files(bundle, manifest)
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{archive.stem}-", dir=archive.parent) as scratch:
        extra, export, temporary = (Path(scratch) / name for name in ("extra", "export", "tmp"))
        for folder in (extra, export, temporary):
            folder.mkdir()
        for name, source in _sources():
            if name not in (HANDLER, MODEL_CONFIG):
                _copy(source, extra / name)
        for name in (*manifest.file_names, MANIFEST):
            _copy(bundle / name, extra / "bundle" / name)
        (extra / FINGERPRINT).write_text(json.dumps({"sha256": _fingerprint(bundle)}), encoding="utf-8")
        command = [sys.executable, "-W", "ignore", "-m", "model_archiver.model_packaging"]
        command += ["--model-name", archive.stem, "--version", manifest.version]
        command += ["--archive-format", "zip-store"]
        command += ["--handler", str(ROOT / HANDLER), "--config-file", str(ROOT / MODEL_CONFIG)]
        command += ["--extra-files", extra.name, "--export-path", export.name]
        # Relative, for it splits paths at commas. It works in a fixed folder of TMPDIR, which two would share.
        environment = os.environ | {"TMPDIR": str(temporary)}
        done = subprocess.run(command, cwd=scratch, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ArchiveError(f"torch-model-archiver failed: {done.stderr.strip()[-2000:]}")
        (export / f"{archive.stem}.mar").replace(archive)
    return archive


def ensure_archive(bundle: Path, archive: Path = ARCHIVE) -> bool:
    """Build `archive` unless it was built from this bundle and this code; return whether it was built.

    Raises what `build_archive` raises.
    """
    if is_current(archive, bundle):
        return False
    build_archive(bundle, archive)
    return True


def is_current(archive: Path, bundle: Path) -> bool:
    """Whether `archive` exists and was built from this bundle and this code."""
    try:
        with zipfile.ZipFile(archive) as opened:
            stored = json.loads(opened.read(FINGERPRINT))["sha256"]
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):
        return False
    return stored == _fingerprint(bundle)


def _sources() -> Iterator[tuple[str, Path]]:
    """The code that goes into the archive: name from the root, path."""
    for required in (HANDLER, MODEL_CONFIG):
        if not (ROOT / required).is_file():
            raise ArchiveError(f"an archive is built from a checkout of the repository; {required} is missing")
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*")):
            parts = path.relative_to(ROOT / package).parts
            if path.suffix in (".py", ".yaml", ".typed") and not LEFT_OUT.intersection(parts):
                yield path.relative_to(ROOT).as_posix(), path


def _fingerprint(bundle: Path) -> str:
    """A hash over all that goes into the archive; a bundle's manifest stands for its files."""
    digest = hashlib.sha256()
    for name, path in (*_sources(), (MANIFEST, bundle / MANIFEST)):
        digest.update(f"{name}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
