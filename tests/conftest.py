"""Fixtures that several test folders share: the demo bundle, the samples and a tiny bundle."""

from pathlib import Path

import pytest
import torch

from tests.support.tiny_bundle import tiny_parts, tiny_parts_with_mapper
from voicestyle.bundle import write_bundle

ROOT = Path(__file__).parent.parent


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="also run the tests that take minutes")


def pytest_collection_modifyitems(config, items):
    reasons = {}
    if not config.getoption("--slow"):
        reasons["slow"] = "takes minutes; run with --slow"
    if not torch.cuda.is_available():
        reasons["gpu"] = "needs a CUDA device"
    for item in items:
        for marker, reason in reasons.items():
            if item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def samples():
    return ROOT / "samples"


@pytest.fixture(scope="session")
def demo_bundle():
    folder = ROOT / "bundles" / "demo"
    if not (folder / "bundle.json").is_file():
        pytest.skip("needs the demo bundle: voicestyle bundle demo")
    return folder


@pytest.fixture
def parts():
    return tiny_parts()


@pytest.fixture
def with_mapper():
    return tiny_parts_with_mapper()


@pytest.fixture(scope="session")
def mapper_bundle(tmp_path_factory):
    """The tiny bundle with a mapper."""
    folder = tmp_path_factory.mktemp("bundles") / "mapper"
    write_bundle(folder, **tiny_parts_with_mapper())
    return folder


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles") / "tiny"
    write_bundle(folder, **tiny_parts())
    return folder
