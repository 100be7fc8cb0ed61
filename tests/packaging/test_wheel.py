"""The wheel in a fresh environment and an empty folder, where nothing of the checkout can be imported."""

import os
import subprocess
import sys
import tomllib
import zipfile
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.support.sources import ROOT, copy_sources
from voicestyle.cli.serve import PORT_OPTIONS
from voicestyle.demo_bundle import fetch_wheel
from voicestyle.serving import Ports
from voicestyle.voice_networks import fetch_ge2e_wheel

LINKED = {
    "voicestyle_handler.py": "handlers/voicestyle_handler.py",
    "model_config.yaml": "handlers/model_config.yaml",
    "config.properties": "config.properties",
    "log4j2.xml": "log4j2.xml",
}
SECONDS = 300


def build(source, folder):
    """The wheel of a source folder or a source distribution."""
    command = [sys.executable, "-m", "pip", "wheel", "-qq", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", folder, source], check=True, timeout=SECONDS)
    (wheel,) = folder.glob("voicestyle-*.whl")
    return wheel


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A copy of the sources, because a build writes into its folder."""
    folder = tmp_path_factory.mktemp("source")
    copy_sources(folder)
    return folder


@pytest.fixture(scope="module")
def wheel(source, tmp_path_factory):
    return build(source, tmp_path_factory.mktemp("wheel"))


class Environment:
    """A fresh environment with the wheel and the dependencies of this one, and an empty working folder."""

    def __init__(self, wheel, folder):
        self.folder = folder / "empty"
        self.folder.mkdir()
        self.bin = folder / "venv" / "bin"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
        (site,) = (folder / "venv" / "lib").glob("python*/site-packages")
        (site / "dependencies.pth").write_text(str(Path(torch.__file__).parents[1]))
        install = [sys.executable, "-m", "pip", "--python", self.bin / "python", "install", "-qq"]
        subprocess.run([*install, "--no-deps", "--no-index", "--ignore-installed", wheel], check=True, timeout=SECONDS)
        self.variables = {"PATH": f"{self.bin}{os.pathsep}{os.defpath}", "HOME": str(folder), "LANG": "C.UTF-8"}

    def start(self, *command, **options):
        command = [self.bin / command[0], *map(str, command[1:])]
        return subprocess.Popen(command, cwd=self.folder, env=self.variables, text=True, **options)

    def run(self, *command):
        """The output of a command that must succeed."""
        with self.start(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            output, errors = process.communicate(timeout=SECONDS)
        assert process.returncode == 0, errors
        return output

    @contextmanager
    def serving(self):
        """Run `voicestyle serve` on free ports; yields its URL."""
        ports = Ports.free()
        options = [f"{option}={getattr(ports, port)}" for port, (option, _) in PORT_OPTIONS.items()]
        with self.start("voicestyle", "serve", *options, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as server:
            try:
                output = []
                while not (line := server.stdout.readline()).startswith("ready:"):
                    output.append(line)
                    assert line, "".join(output)
                yield f"http://127.0.0.1:{ports.inference}"
                server.terminate()
                assert server.wait(SECONDS) == 0
            finally:
                server.kill()


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    return Environment(wheel, tmp_path_factory.mktemp("fresh"))


def test_each_linked_file_exists_once(wheel):
    links = ROOT / "voicestyle" / "assets" / "torchserve"
    assert {link.name for link in links.iterdir()} == set(LINKED)
    with zipfile.ZipFile(wheel) as opened:
        for name, target in LINKED.items():
            assert (links / name).is_symlink()
            assert (links / name).resolve() == ROOT / target
            assert opened.read(f"voicestyle/assets/torchserve/{name}") == (ROOT / target).read_bytes()


def test_the_source_distribution_builds_the_same_wheel(source, wheel, tmp_path):
    code = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, tmp_path], cwd=source, check=True, capture_output=True)
    (archive,) = tmp_path.glob("voicestyle-*.tar.gz")
    with zipfile.ZipFile(wheel) as one, zipfile.ZipFile(build(archive, tmp_path)) as other:
        assert set(one.namelist()) == set(other.namelist())
        assert all(one.read(name) == other.read(name) for name in one.namelist() if name.startswith(("cmpc2", "voice")))


def test_the_package_is_imported_from_the_wheel(environment):
    code = "import cmpc2, voicestyle; print(voicestyle.__version__, cmpc2.__file__, voicestyle.__file__)"
    version, *paths = environment.run("python", "-c", code).split()
    assert version == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert all(Path(path).is_relative_to(environment.bin.parent) for path in paths)


@pytest.mark.serving
def test_all_commands_work_in_an_empty_folder(environment, samples):
    wheels = ROOT / ".cache" / "wheels"
    given = ("--wheel", fetch_wheel(wheels), "--ge2e-wheel", fetch_ge2e_wheel(wheels))
    environment.run("voicestyle", "bundle", "demo", *given)
    environment.run("voicestyle", "archive")
    assert {path.name for path in environment.folder.iterdir()} == {"bundles", "model_store"}
    assert "is current" in environment.run("voicestyle", "archive")
    options = ("--steps", 2, "--size", 256, "--seed", 1)
    with environment.serving() as url:
        environment.run("voicestyle", "request", samples / "slt.wav", "--url", url, "-o", "served.png", *options)
    environment.run("voicestyle", "generate", samples / "slt.wav", "-o", "local.png", *options)
    for name in ("served.png", "local.png"):
        with Image.open(environment.folder / name) as image:
            image.load()
            assert (image.format, image.size) == ("PNG", (256, 256))
