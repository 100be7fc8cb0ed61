"""The archive: whole, self-contained, never half-written, rebuilt only when something in it changed."""

import json
import shutil
import subprocess
import sys
import zipfile

import pytest

from voicestyle import archive as archives
from voicestyle.archive import build_archive, ensure_archive, is_current
from voicestyle.errors import ArchiveError, BundleError
from voicestyle.manifest import MANIFEST, Manifest

IMPORT = """
import sys
sys.path.insert(0, sys.argv[1])
import cmpc2, voicestyle.pipeline, voicestyle_handler
loaded = [module.__file__ for name, module in sys.modules.items() if name.split(".")[0] in
          ("cmpc2", "voicestyle", "handlers", "voicestyle_handler") and module.__file__]
assert len(loaded) > 20 and all(path.startswith(sys.argv[1]) for path in loaded), loaded
"""


def test_holds_the_bundle_the_handler_and_both_packages(tiny_archive, tiny_bundle):
    with zipfile.ZipFile(tiny_archive) as opened:
        names = set(opened.namelist())
        manifest = json.loads(opened.read("MAR-INF/MANIFEST.json"))
        for name in (*Manifest.read(tiny_bundle).file_names, MANIFEST):
            assert opened.read(f"bundle/{name}") == (tiny_bundle / name).read_bytes()
    assert manifest["model"]["modelName"] == "voicestyle"
    assert manifest["model"]["modelVersion"] == "7"
    assert manifest["model"]["configFile"] in names
    assert {"voicestyle_handler.py", "handlers/requests.py", "cmpc2/vad.py", "voicestyle/pipeline.py"} <= names
    folders = ("voicestyle/training", "voicestyle/evaluation", "voicestyle/assets", "voicestyle/cli", "tests")
    assert not [name for name in names if name.startswith(folders) or "__pycache__" in name]


def test_runs_without_the_repository(tiny_archive, tmp_path):
    with zipfile.ZipFile(tiny_archive) as opened:
        opened.extractall(tmp_path / "model")
    command = [sys.executable, "-c", IMPORT, str(tmp_path / "model")]
    subprocess.run(command, cwd=tmp_path, check=True)


def test_is_built_again_only_when_something_changed(tiny_bundle, tmp_path, monkeypatch):
    archive = tmp_path / "store" / "voicestyle.mar"
    bundle = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, bundle)
    assert ensure_archive(bundle, archive)
    assert not ensure_archive(bundle, archive)
    manifest = json.loads((bundle / MANIFEST).read_text()) | {"card": "another"}
    (bundle / MANIFEST).write_text(json.dumps(manifest))
    assert not is_current(archive, bundle)
    archive.write_bytes(b"no archive")
    assert not is_current(archive, bundle)


def test_a_failure_leaves_the_old_one_and_nothing_else(tiny_bundle, tmp_path, monkeypatch):
    archive = tmp_path / "voicestyle.mar"
    archive.write_bytes(b"the old one")
    monkeypatch.setattr(archives.sys, "executable", shutil.which("false"))
    with pytest.raises(ArchiveError, match="torch-model-archiver failed"):
        build_archive(tiny_bundle, archive)
    assert archive.read_bytes() == b"the old one"
    assert list(tmp_path.iterdir()) == [archive]


def test_no_whole_bundle_no_archive(tiny_bundle, tmp_path):
    archive = tmp_path / "store" / "voicestyle.mar"
    with pytest.raises(BundleError, match=r"bundle\.json is missing"):
        build_archive(tmp_path, archive)
    shutil.copytree(tiny_bundle, tmp_path / "bundle")
    (tmp_path / "bundle" / "latent_bank.npy").write_bytes(b"something else")
    with pytest.raises(BundleError, match=r"latent_bank\.npy was altered"):
        build_archive(tmp_path / "bundle", archive)
    assert not archive.parent.exists()


def test_says_that_it_needs_the_repository(tiny_bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "ROOT", tmp_path)
    with pytest.raises(ArchiveError, match="checkout of the repository"):
        build_archive(tiny_bundle, tmp_path / "voicestyle.mar")
