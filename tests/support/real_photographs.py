"""Photographs of real people with clear rights, out of packages that carry them. They are fetched, never committed.

- `face_recognition` 1.3.0 (MIT), source archive: official portraits of two presidents, works of the United States
  government;
- `@vladmandic/face-api` 1.7.15 (MIT): six group pictures of its demonstration, taken by its author;
- scikit-image (BSD): the portrait of an astronaut, by NASA.
"""

import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from importlib.util import find_spec
from pathlib import Path

from PIL import Image

CACHE = Path(__file__).parents[2] / ".cache" / "real_photographs"

SOURCE_ARCHIVE = "face_recognition-1.3.0.tar.gz"
SOURCE_SHA256 = "5e5efdd1686aa566af0d3cc1313b131e4b197657a8ffd03669e6d3fad92705ec"
PORTRAITS = ("biden.jpg", "obama.jpg", "obama2.jpg", "obama3.jpg")
PARTIAL_FACES = ("obama_partial_face.jpg", "obama_partial_face2.jpg")

NPM_ARCHIVE = "vladmandic-face-api-1.7.15.tgz"
NPM_SHA256 = "0d77fffeef362ef9c0939cf6c567f3a2e8e177f114fa257a3270cbd2e509b031"
GROUPS = tuple(f"sample{i}.jpg" for i in range(1, 7))


def real_portraits(cache: Path = CACHE) -> list[Path]:
    """Five pictures with one whole face each, of three people: astronaut.png, biden.jpg, obama*.jpg."""
    return [astronaut(), *_pictures(cache, source_archive(cache), PORTRAITS)]


def partial_faces(cache: Path = CACHE) -> list[Path]:
    """Two pictures of a face that the border cuts."""
    return _pictures(cache, source_archive(cache), PARTIAL_FACES)


def group_pictures(cache: Path = CACHE) -> list[Path]:
    """Six pictures with three to five faces each."""
    return _pictures(cache, npm_archive(cache), GROUPS)


def astronaut() -> Path:
    spec = find_spec("skimage.data")
    assert spec
    assert spec.origin
    return Path(spec.origin).parent / "astronaut.png"


def source_archive(cache: Path = CACHE) -> Path:
    """The source archive of face_recognition. pip would build it to learn its dependencies, but for `--no-deps`."""
    command = [sys.executable, "-m", "pip", "download", "-qq", "--no-deps", "--no-binary", ":all:"]
    command += ["--no-build-isolation", "--dest", str(cache), "face_recognition==1.3.0"]
    return _fetch(cache / SOURCE_ARCHIVE, SOURCE_SHA256, command)


def npm_archive(cache: Path = CACHE) -> Path:
    """The archive of @vladmandic/face-api."""
    if not shutil.which("npm"):
        raise RuntimeError(f"npm must be installed to fetch {NPM_ARCHIVE}")
    command = ["npm", "pack", "--silent", "--pack-destination", str(cache), "@vladmandic/face-api@1.7.15"]
    return _fetch(cache / NPM_ARCHIVE, NPM_SHA256, command)


def _fetch(archive: Path, sha256: str, command: list[str]) -> Path:
    if not archive.is_file():
        archive.parent.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if not archive.is_file():
            raise RuntimeError(f"{command[0]} could not fetch {archive.name}: {done.stderr.strip()[-400:]}")
    if (got := hashlib.sha256(archive.read_bytes()).hexdigest()) != sha256:
        raise RuntimeError(f"{archive} must have the SHA-256 {sha256}, got {got}: delete it")
    return archive


def _pictures(cache: Path, archive: Path, names: tuple[str, ...]) -> list[Path]:
    """The members of these names, each written whole or not at all, because tests may run at the same time."""
    paths = [cache / name for name in names]
    if all(path.is_file() for path in paths):
        return paths
    with tarfile.open(archive) as members:
        by_name = {Path(member.name).name: member for member in members if member.isfile()}
        for path in paths:
            content = members.extractfile(by_name[path.name])
            assert content
            with tempfile.NamedTemporaryFile(dir=cache, delete=False) as file:
                file.write(content.read())
            Path(file.name).replace(path)
    return paths


# Left, top, right and bottom of each face's surroundings in the group pictures.
SURROUNDINGS = {
    "sample1.jpg": ((0, 455, 424, 934), (221, 188, 731, 749), (647, 213, 1209, 831), (1317, 11, 1838, 585)),
    "sample2.jpg": ((110, 0, 687, 574), (729, 51, 1269, 645), (1256, 0, 1811, 577)),
    "sample3.jpg": ((376, 124, 972, 780), (822, 0, 1497, 714), (1302, 97, 1913, 769)),
    "sample4.jpg": ((94, 14, 645, 620), (455, 0, 998, 472), (774, 8, 1302, 589), (1068, 0, 1596, 544)),
    "sample5.jpg": (
        (181, 676, 774, 1328),
        (461, 248, 975, 814),
        (641, 0, 1121, 474),
        (931, 29, 1433, 582),
        (1183, 195, 1771, 843),
    ),
    "sample6.jpg": ((77, 284, 681, 949), (451, 141, 1047, 797), (982, 128, 1571, 776), (1235, 39, 1892, 761)),
}


def single_faces(cache: Path = CACHE) -> list[Path]:
    """Cuts of the group pictures around one face each, as JPEG files; parts of other faces may be visible."""
    cuts: list[Path] = []
    for group in group_pictures(cache):
        for i, box in enumerate(SURROUNDINGS[group.name]):
            path = cache / f"{group.stem}_face{i}.jpg"
            if not path.is_file():
                with Image.open(group) as image, tempfile.NamedTemporaryFile(dir=cache, delete=False) as file:
                    image.crop(box).save(file, "JPEG", quality=95)
                Path(file.name).replace(path)
            cuts.append(path)
    return cuts
