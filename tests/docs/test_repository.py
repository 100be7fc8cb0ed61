"""The files that maintainers and code hosts read: valid, and naming targets, folders and pages that exist."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
README = (ROOT / "README.md").read_text()
SCHEMAS = {
    "vendor.github-workflows": WORKFLOWS,
    "vendor.dependabot": [GITHUB / "dependabot.yml"],
    "vendor.github-issue-forms": [path for path in GITHUB.glob("ISSUE_TEMPLATE/*.yml") if path.stem != "config"],
    "vendor.github-issue-config": [GITHUB / "ISSUE_TEMPLATE" / "config.yml"],
    "vendor.citation-file-format": [ROOT / "CITATION.cff"],
}


def run_lines(workflow):
    jobs = yaml.safe_load(workflow.read_text())["jobs"].values()
    return [line for job in jobs for step in job["steps"] for line in step.get("run", "").splitlines()]


@pytest.mark.parametrize("schema", SCHEMAS)
def test_files_follow_their_schema(schema):
    assert SCHEMAS[schema]
    command = [Path(sys.executable).parent / "check-jsonschema", "--builtin-schema", schema, *SCHEMAS[schema]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_workflows_call_make_targets_that_exist():
    called = {name for path in WORKFLOWS for line in run_lines(path) for name in re.findall(r"make ([a-z-]+)", line)}
    assert called >= {"lint", "test", "wheel", "docs", "image"}
    makefile = (ROOT / "Makefile").read_text()
    assert called <= set(re.findall(r"(?m)^([a-z-]+):", makefile))


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_by_version(workflow):
    used = re.findall(r"uses: (\S+)", workflow.read_text())
    assert used
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@v\d+\.\d+\.\d+", action) for action in used)


def test_readme_names_the_first_commands():
    assert "make demo" in README
    assert "make test" in README


def test_readme_maps_every_top_level_folder():
    listed = set(re.findall(r"^\| `(\w+)/` \|", README, flags=re.MULTILINE))
    ignored = {line.strip("/*\n") for line in (ROOT / ".gitignore").read_text().splitlines()} - {"model_store"}
    folders = {path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith((".", "_"))}
    assert listed == {name for name in folders - ignored if not name.endswith(".egg-info")}


def test_readme_and_citation_file_cite_the_same_papers():
    references = yaml.safe_load((ROOT / "CITATION.cff").read_text())["references"]
    cited = re.findall(r"(?m)^  title +=\s+\{(.+)\},$", README)
    assert [reference["title"] for reference in references] == cited
    assert references[0]["doi"] in README


def test_changelog_has_a_section_for_the_next_release():
    headings = re.findall(r"(?m)^## (.+)$", (ROOT / "CHANGELOG.md").read_text())
    assert headings[0] == "Unreleased"
    assert all(re.fullmatch(r"\d+\.\d+\.\d+ \(\d{4}-\d\d-\d\d\)", heading) for heading in headings[1:])
