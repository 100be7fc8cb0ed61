#!/bin/sh
# sh scripts/install.sh EXTRA[,EXTRA...]: this checkout and what those extras name, in the locked versions, into .venv.
# PYTHON names the interpreter. The Makefile and the Dockerfile both install with this.
set -eu
cd "$(dirname "$0")/.."
[ -x .venv/bin/python ] || "${PYTHON:-python3.11}" -m venv .venv
# requirements.lock constrains every install, so an extra installs what it names and no other version.
exec .venv/bin/python -m pip install --quiet --disable-pip-version-check \
    --constraint requirements.lock --editable ".[$1]"
