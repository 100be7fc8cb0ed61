"""The files of the repository that a build of the package reads."""

import shutil
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("cmpc2", "handlers", "voicestyle")
FILES = ("LICENSE", "README.md", "config.properties", "log4j2.xml", "pyproject.toml")


def copy_sources(target):
    """Copy them to a folder; links stay links."""
    for name in FOLDERS:
        shutil.copytree(ROOT / name, target / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(ROOT / name, target / name)
