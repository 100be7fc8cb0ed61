"""Every code block of the documentation runs, or is checked as far as it can be without its networks.

A block of an unknown language, a command without a check, and an indented block without a language all fail. Python
runs, curl sends, `voicestyle` parses its arguments: against a fake service, in a folder with made-up input files.
"""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from markdown_it import MarkdownIt

from tests.support.client_responses import FACE, encode
from tests.support.code_blocks import HTTP, PageRunner
from tests.support.fake_service import FakeService
from tests.support.scripted_grpc import ScriptedService

ROOT = Path(__file__).parents[2]
PAGES = sorted(page for pattern in ("*.md", "[a-z]*/*.md", ".github/**/*.md") for page in ROOT.glob(pattern))


def blocks_of(page):
    return [token for token in MarkdownIt().parse(page.read_text()) if token.type in ("fence", "code_block")]


def name_of(page):
    return str(page.relative_to(ROOT))


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """A folder with parts of the checkout and the input files that the examples name."""
    for name in ("bundles", "deploy", "docs", "samples", "scripts"):
        (tmp_path / name).symlink_to(ROOT / name)
    for voice in ("voice.wav", "voice.flac", "my.flac"):
        shutil.copy(ROOT / "samples" / "slt.wav", tmp_path / voice)
    shutil.copy(ROOT / "docs" / "images" / "samples.jpg", tmp_path / "face.jpg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def page_runner(workspace, monkeypatch):
    with FakeService() as service, ScriptedService(script=[encode(FACE)] * 64) as grpc_service:
        yield PageRunner(workspace, service, grpc_service, monkeypatch)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_code_blocks_of_a_page_run(page, page_runner):
    for block in blocks_of(page):
        language = block.info.split()[0] if block.info else "no language"
        check = getattr(page_runner, f"check_{language}", None)
        place = f"{name_of(page)}:{block.map[0] + 1}"
        assert check, f"{place}: a code block of {language} has no check"
        try:
            check(block.content)
        except Exception as error:
            raise AssertionError(f"{place}: {type(error).__name__}: {error}") from error


def test_unknown_flags_and_targets_are_found(page_runner):
    for text in (
        "voicestyle serve --colour red",
        "voicestyle request absent/voice.wav",
        "make absent-target",
        "curl -F audio=@samples/slt.wav -F sead=7 http://127.0.0.1:8080/predictions/voicestyle",
        "curl http://127.0.0.1:8080/ready",
        "docker build --target tpu .",
        "docker run voicestyle:cpu --host 0.0.0.0 --colour red",
        "kubectl apply --kustomize deployment",
        "python -m benchmarks.absent",
        "pip install '.[absent]'",
        "rm -rf build",
    ):
        with pytest.raises((AssertionError, subprocess.CalledProcessError, ModuleNotFoundError)):
            page_runner.check_sh(text)


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("json", '{"ok": …}'),
        ("yaml", "a: b: c"),
        ("promql", "sum(rate(voicestyle_steps_total[5m])"),
        ("bibtex", "@article{key,\n  title = {One\n}"),
        ("text", "voicestyle serve"),
        ("sh", "voicestyle serve > log"),
        ("sh", "kill $(cat pid)"),
    ],
)
def test_mistakes_in_a_block_are_found(page_runner, language, text):
    with pytest.raises((AssertionError, SyntaxError, ValueError, yaml.YAMLError)):
        getattr(page_runner, f"check_{language}")(text)


def test_python_blocks_run_for_each_error_that_they_catch(page_runner, capsys):
    page_runner.check_python(
        "from voicestyle.client import BadRequestError, Client\n"
        f"with Client('{HTTP}') as client:\n"
        "    try:\n"
        "        print(client.generate('voice.wav').similarity)\n"
        "    except BadRequestError as error:\n"
        "        print(error.code)\n"
    )
    assert capsys.readouterr().out.split() == ["0.75", "no_speech"]


def test_pages_have_blocks_and_links_that_exist():
    assert any(blocks_of(page) for page in PAGES)
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[\w-]*)?\)", page.read_text()):
            assert "://" in target or target.startswith("mailto:") or (page.parent / target).exists(), (page, target)
