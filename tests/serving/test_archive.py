"""The archive: complete, self-contained, written atomically, and stale when a part of it changed."""

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

import voicestyle
from tests.support.optional_parts import optional_parts
from voicestyle import archive as archives
from voicestyle.archive import build_archive, is_current, model_config
from voicestyle.bundle import write_bundle
from voicestyle.errors import ArchiveError, BundleError
from voicestyle.manifest import FRONT_END, LATENT_MAP, MANIFEST, MAPPER, Manifest

RULE = "batchSize must be more than live_requests + queue"
ROOT = Path(__file__).parents[2]
IMPORT = """
import sys
sys.path.insert(0, sys.argv[1])
import cmpc2, voicestyle.pipeline, voicestyle_handler
assert voicestyle.__version__ == sys.argv[2]
loaded = [module.__file__ for name, module in sys.modules.items() if name.split(".")[0] in
          ("cmpc2", "voicestyle", "voicestyle_handler") and module.__file__]
assert len(loaded) > 20 and all(path.startswith(sys.argv[1]) for path in loaded), loaded
"""

FACE = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from voicestyle.options import Options
from voicestyle.pipeline import FaceRequest, Pipeline
pipeline = Pipeline.load(Path(sys.argv[1], "bundle"), capacity=1)
request = FaceRequest.of("a", pipeline.prepare(Path(sys.argv[2]), Options(steps=1)))
assert request.prepared.first_latent.shape == (512,)
assert Path(sys.modules["voicestyle.latent_map"].__file__).is_relative_to(sys.argv[1])
"""


def test_holds_bundle_handler_and_packages(tiny_archive, tiny_bundle):
    with zipfile.ZipFile(tiny_archive) as opened:
        names = set(opened.namelist())
        manifest = json.loads(opened.read("MAR-INF/MANIFEST.json"))
        for name in (*Manifest.read(tiny_bundle).file_names, MANIFEST):
            assert opened.read(f"bundle/{name}") == (tiny_bundle / name).read_bytes()
    assert manifest["model"]["modelName"] == "voicestyle"
    assert manifest["model"]["modelVersion"] == "7"
    assert manifest["model"]["configFile"] in names
    assert {
        "voicestyle_handler.py",
        "voicestyle/worker/request_parser.py",
        "voicestyle/__init__.py",
        "cmpc2/vad.py",
        "voicestyle/pipeline.py",
    } <= names
    folders = ("voicestyle/training", "voicestyle/evaluation", "voicestyle/assets", "voicestyle/cli", "tests")
    assert not [name for name in names if name.startswith(folders) or "__pycache__" in name]


def test_the_handler_is_the_repository_s_file_and_the_yaml_too_but_for_batch_size(tiny_archive):
    with zipfile.ZipFile(tiny_archive) as opened:
        name = "voicestyle_handler.py"
        assert opened.read(name) == (ROOT / "handlers" / name).read_bytes()
        config = opened.read("model_config.yaml").decode()
    source = (ROOT / "handlers" / "model_config.yaml").read_text()
    assert config.startswith(source)
    assert yaml.safe_load(config) == yaml.safe_load(source) | {"batchSize": 32 + 64 + 8}


@pytest.mark.parametrize(
    ("section", "batch_size"),
    [
        ("handler: {device: cpu}", 8 + 16 + 8),
        ("handler: {batching: sequential}", 8 + 16 + 8),
        ("handler: {device: cuda}", 32 + 64 + 8),
        ("handler: {queue: 0}", 32 + 8),
        ("handler: {live_requests: 50, device: cpu}", 50 + 100 + 8),
        ("handler: {live_requests: 3, queue: 4}", 3 + 4 + 8),
        ("handler: {live_requests: 3, queue: 4}\nbatchSize: 8", 8),
        ("jobQueueSize: 1", 32 + 64 + 8),
    ],
)
def test_batch_size_follows_from_slots_and_queue(config_file, section, batch_size):
    config_file.write_text(section)
    assert yaml.safe_load(model_config()) == yaml.safe_load(section) | {"batchSize": batch_size}


@pytest.mark.parametrize(
    ("variable", "device", "batch_size"), [("cpu", "auto", 32), ("cuda", "cpu", 104), ("auto", "cpu", 104)]
)
def test_the_device_of_the_environment_comes_first(config_file, monkeypatch, variable, device, batch_size):
    monkeypatch.setenv("VOICESTYLE_DEVICE", variable)
    config_file.write_text(f"handler: {{device: {device}}}")
    assert yaml.safe_load(model_config())["batchSize"] == batch_size


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("handler: {live_requests: 3, queue: 4}\nbatchSize: 7", f"{RULE}, 7, or be left out, got 7"),
        ("batchSize: 32", f"{RULE}, 96, or be left out, got 32"),
        ("batchSize: many", f"{RULE}, 96, or be left out, got 'many'"),
        ("handler: {queues: 4}", "handler: unknown key 'queues'; the nearest known one is 'queue'"),
        ("handler: {", "while parsing a flow node expected the node content"),
        ("- handler", "must be a mapping of names to values, got ['handler']"),
        ("", "must be a mapping of names to values, got None"),
    ],
)
def test_an_invalid_model_config_is_one_clear_error(config_file, tiny_bundle, text, message):
    config_file.write_text(text)
    with pytest.raises(ArchiveError) as caught:
        build_archive(tiny_bundle, config_file.with_name("voicestyle.mar"))
    assert str(caught.value).startswith(f"model_config.yaml: {message}")
    assert "\n" not in str(caught.value)
    assert list(config_file.parent.iterdir()) == [config_file]


@pytest.fixture
def config_file(tmp_path, monkeypatch):
    """The file from which an archive's model config is made."""
    file = tmp_path / "model_config.yaml"
    monkeypatch.setattr(archives, "MODEL_CONFIG", file)
    return file


def test_worker_code_runs_from_the_archive_alone(tiny_archive, tmp_path):
    with zipfile.ZipFile(tiny_archive) as opened:
        opened.extractall(tmp_path / "model")
    command = [sys.executable, "-c", IMPORT, str(tmp_path / "model"), voicestyle.__version__]
    subprocess.run(command, cwd=tmp_path, check=True)


def test_optional_parts_of_a_bundle_run_from_the_archive_alone(tmp_path, samples):
    write_bundle(tmp_path / "bundle", **optional_parts())
    archive = build_archive(tmp_path / "bundle", tmp_path / "voicestyle.mar")
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(tmp_path / "model")
    for name in (FRONT_END, LATENT_MAP, MAPPER):
        assert (tmp_path / "model" / "bundle" / name).read_bytes() == (tmp_path / "bundle" / name).read_bytes()
    command = [sys.executable, "-c", FACE, str(tmp_path / "model"), str(samples / "slt.wav")]
    subprocess.run(command, cwd=tmp_path, check=True)


def test_is_stale_when_a_part_of_it_changed(tiny_bundle, tmp_path, monkeypatch):
    archive = tmp_path / "store" / "voicestyle.mar"
    bundle = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, bundle)
    assert not is_current(archive, bundle)
    build_archive(bundle, archive)
    assert is_current(archive, bundle)
    handler = tmp_path / "voicestyle_handler.py"
    handler.write_bytes(archives.HANDLER.read_bytes() + b"# changed")
    with monkeypatch.context() as patch:
        patch.setattr(archives, "HANDLER", handler)
        assert not is_current(archive, bundle)
    config = tmp_path / "model_config.yaml"
    config.write_bytes(archives.MODEL_CONFIG.read_bytes())
    with monkeypatch.context() as patch:
        patch.setattr(archives, "MODEL_CONFIG", config)
        assert is_current(archive, bundle)
        patch.setattr("voicestyle.worker.service_config.REJECTED", 9)
        assert not is_current(archive, bundle)
    with monkeypatch.context() as patch:
        patch.setattr(archives, "__version__", "another")
        assert not is_current(archive, bundle)
    manifest = json.loads((bundle / MANIFEST).read_text()) | {"card": "another"}
    (bundle / MANIFEST).write_text(json.dumps(manifest))
    assert not is_current(archive, bundle)
    archive.write_bytes(b"no archive")
    assert not is_current(archive, bundle)


def test_a_failed_build_keeps_the_old_archive(tiny_bundle, tmp_path, monkeypatch):
    archive = tmp_path / "voicestyle.mar"
    archive.write_bytes(b"the old one")
    monkeypatch.setattr(archives.sys, "executable", shutil.which("false"))
    with pytest.raises(ArchiveError, match="torch-model-archiver failed"):
        build_archive(tiny_bundle, archive)
    assert archive.read_bytes() == b"the old one"
    assert list(tmp_path.iterdir()) == [archive]


def test_incomplete_or_altered_bundles_are_rejected(tiny_bundle, tmp_path):
    archive = tmp_path / "store" / "voicestyle.mar"
    with pytest.raises(BundleError, match=r"bundle\.json is missing"):
        build_archive(tmp_path, archive)
    shutil.copytree(tiny_bundle, tmp_path / "bundle")
    (tmp_path / "bundle" / "latent_bank.npy").write_bytes(b"something else")
    with pytest.raises(BundleError, match=r"latent_bank\.npy was altered"):
        build_archive(tmp_path / "bundle", archive)
    assert not archive.parent.exists()
