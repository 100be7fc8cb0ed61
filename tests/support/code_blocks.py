"""Checks of the code blocks of one page of documentation, by language and by command."""

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import tomllib
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import click
import promql_parser
import torch
import yaml
from click.testing import CliRunner

import cmpc2
from tests.support.fake_service import CLOSE, PAGES, PATH
from voicestyle.cli import main

ROOT = Path(__file__).parents[2]
HTTP, GRPC = "http://127.0.0.1:8080", "127.0.0.1:7070"
CAUSES = {
    "BadRequestError": "no_speech",
    "OverloadedError": "overloaded",
    "ServerError": "internal",
    "APIConnectionError": CLOSE,
}
PATHS_OF_PORTS = {8080: {PATH, "/ping"}, 8000: {PATH, "/ping"}, 8082: {"/metrics"}, 8083: PAGES - {"/ping"}}
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DOCKERFILE = (ROOT / "Dockerfile").read_text()


class PageRunner:
    """Checks the blocks of one page in their order: `check_LANGUAGE` by block, `run_COMMAND` by command."""

    def __init__(self, folder, service, grpc_service, monkeypatch):
        self.folder = folder
        self.service = service
        self.target = grpc_service.target
        self.names = {"__name__": "example"}  # shared by the Python blocks of a page
        monkeypatch.setattr("time.sleep", lambda _: None)  # pauses between retries
        for command in leaf_commands(main):
            monkeypatch.setattr(command, "callback", lambda **_: None)

    def check_python(self, code):
        if "model_best.pth.tar" in code:
            with torch.device("meta"):  # shapes without values
                shapes = cmpc2.CMPC().state_dict()
            state = {key: torch.zeros(value.shape, dtype=value.dtype) for key, value in shapes.items()}
            torch.save({"model": state}, self.folder / "model_best.pth.tar")
        tree = ast.parse(code.replace(HTTP, self.service.url).replace(GRPC, self.target))
        caught = {
            name.id
            for handler in ast.walk(tree)
            if isinstance(handler, ast.ExceptHandler) and handler.type
            for name in ast.walk(handler.type)
            if isinstance(name, ast.Name)
        }
        for cause in [None, *(CAUSES[name] for name in sorted(caught & CAUSES.keys()))]:
            self.service.error = cause
            exec(compile(tree, "example", "exec"), self.names)
        self.service.error = None

    def check_sh(self, text):
        for words in commands_of(text):
            command = Path(words[0]).name.replace("-", "_").replace(".11", "").replace("python3", "python")
            run = getattr(self, f"run_{command}", None)
            assert run, f"the command {words[0]!r} has no check"
            run(words[1:])

    check_bash = check_shell = check_sh

    def check_json(self, text):
        json.loads(text)

    def check_jsonl(self, text):
        assert all(isinstance(json.loads(line), dict) for line in text.splitlines())

    def check_yaml(self, text):
        assert list(yaml.safe_load_all(text)) != [None]

    def check_toml(self, text):
        assert tomllib.loads(text)

    def check_promql(self, text):
        for query in text.strip().split("\n\n"):
            promql_parser.parse(query)

    def check_bibtex(self, text):
        entries = re.findall(r"(?ms)^@(\w+)\{(\w+),\n(.*?)\n\}$", text)
        assert len(entries) == text.count("@")
        for _, key, entry in entries:
            fields = dict(re.findall(r"(?m)^  (\w+) +=\s+\{(.+)\},?$", entry))
            assert {"title", "author", "year"} <= fields.keys(), key
            assert len(fields) == len(entry.splitlines()), key

    def check_mermaid(self, text):
        assert text.split()[0] in {"flowchart", "sequenceDiagram", "stateDiagram-v2", "classDiagram"}

    def check_text(self, text):
        """Output or a layout; commands and code need their own language."""
        commands = {name.removeprefix("run_") for name in dir(self) if name.startswith("run_")}
        assert not commands & {Path(line.split()[0]).name for line in text.splitlines() if line.strip()}

    def run_voicestyle(self, arguments):
        for word in arguments:
            if word.endswith("/"):
                (self.folder / word).mkdir(exist_ok=True)
            if re.fullmatch(r"[\w.-]+\.(wav|flac|mp4|pt|tar|csv|npy|txt)", word):
                (self.folder / word).touch()
        expanded = [sorted(map(str, self.folder.glob(word))) if "*" in word else [word] for word in arguments]
        done = CliRunner().invoke(main, [word for words in expanded for word in words])
        assert done.exit_code == 0, done.output

    def run_make(self, arguments):
        clean = {name: value for name, value in os.environ.items() if name != "MAKEFLAGS"}
        subprocess.run(["make", "--dry-run", *arguments], cwd=ROOT, check=True, capture_output=True, env=clean)
        makefile = (ROOT / "Makefile").read_text()
        for variable in re.findall(r"\b([A-Z_]+)=", " ".join(arguments)):
            assert f"$({variable})" in makefile, f"the Makefile does not read {variable}"

    def run_curl(self, arguments):
        sent = list(arguments)
        (at,) = (at for at, word in enumerate(sent) if "://" in word)
        port, path = re.fullmatch(r"http://[\w.-]+:(\d+)(/.*)", sent[at]).groups()
        assert path in PATHS_OF_PORTS[int(port)], f"port {port} does not serve {path}"
        sent[at] = self.service.url + path
        if shutil.which("curl"):
            subprocess.run(["curl", "--fail-with-body", "--silent", "--max-time", "20", *sent], check=True)

    def run_docker(self, arguments):
        words = iter(arguments)
        command = next(words)
        assert command in {"build", "run", "stop", "push", "tag", "logs"}
        for word in words:
            if word == "--target":
                assert f" AS {(target := next(words))}\n" in DOCKERFILE, f"the Dockerfile has no target {target}"
            elif word == "--build-arg":
                name = next(words).split("=")[0]
                assert re.search(rf"(?m)^ARG {name}(=|$)", DOCKERFILE), f"the Dockerfile has no argument {name}"
            elif command == "run" and "voicestyle:" in word:
                self.run_voicestyle(["serve", *words])

    def run_kubectl(self, arguments):
        for option, word in pairwise(arguments):
            if option in ("--kustomize", "-k"):
                assert (self.folder / word / "kustomization.yaml").is_file()
            elif option in ("--filename", "-f"):
                assert (self.folder / word).exists()
        declared = "".join(path.read_text() for path in (ROOT / "deploy").rglob("*.yaml"))
        for name in re.findall(r"\b(?:deployment|service|svc|deploy)/([\w-]+)", " ".join(arguments)):
            assert f"name: {name}" in declared

    def run_python(self, arguments):
        if arguments[:2] == ["-m", "pytest"]:
            return self.run_pytest(arguments[2:])
        if arguments[0] == "-m":
            program, options = find_spec(arguments[1]), arguments[2:]
            assert program, f"there is no module {arguments[1]}"
            sources = Path(program.origin).parent.glob("*.py")
        else:
            sources, options = [ROOT / arguments[0]], arguments[1:]
        text = "--help" + "".join(source.read_text() for source in sources)
        assert not [option for option in options if option.startswith("--") and option.split("=")[0] not in text]
        return None

    def run_torchrun(self, arguments):
        module = arguments.index("-m")
        assert arguments[module + 1] == "voicestyle.cli"
        assert all(word.startswith("--nproc-per-node=") for word in arguments[:module])
        self.run_voicestyle(arguments[module + 2 :])

    def run_tensorboard(self, arguments):
        assert arguments[0] == "--logdir"
        assert len(arguments) == 2

    def run_pip(self, arguments):
        assert arguments[0] in {"install", "wheel"}
        known = PYPROJECT["project"]["optional-dependencies"]
        for extras in re.findall(r"\[([\w,]+)\]", " ".join(arguments)):
            assert set(extras.split(",")) <= known.keys(), f"unknown extra in {extras}"

    def run_pytest(self, arguments):
        known = (ROOT / "tests" / "conftest.py").read_text() + "-m -k -q -x --cov"
        for word in arguments:
            assert not word.startswith("-") or word in known, f"unknown option {word}"
            assert not word.startswith("tests") or (ROOT / word).exists(), f"there is no {word}"

    def run_sh(self, arguments):
        subprocess.run(["sh", "-n", ROOT / arguments[0]], check=True)

    def run_git(self, arguments):
        assert arguments[0] in {"clone", "switch", "commit", "tag", "push"}

    def run_pre_commit(self, arguments):
        assert arguments[0] in {"install", "run"}

    def run_cd(self, arguments):
        assert len(arguments) == 1

    def run_export(self, arguments):
        assert all(re.match(r"[A-Z_]+=", word) for word in arguments)


def leaf_commands(command):
    if isinstance(command, click.Group):
        return [leaf for each in command.commands.values() for leaf in leaf_commands(each)]
    return [command]


def commands_of(text):
    """The commands of a shell block as lists of words, without leading assignments."""
    assert "`" not in text, "command substitution has no check"
    assert "$(" not in text, "command substitution has no check"
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
        lexer.whitespace_split = True
        words = []
        for word in [*lexer, ";"]:
            assert not re.fullmatch("[<>]+", word), "redirection has no check"
            if re.fullmatch("[|&;]+", word):
                while words and re.match(r"[A-Z_]+=", words[0]):
                    words.pop(0)
                if words:
                    yield words
                words = []
            else:
                words.append(word)
