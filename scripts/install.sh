#!/bin/sh
# sh scripts/install.sh EXTRA[,EXTRA...] [PIP OPTION...]
# Install this package with those extras into .venv, in the versions of requirements.lock or of the file that the
# variable LOCK names; requirements-cuda.lock also pins what torch's CUDA build needs. The variable PYTHON names the
# interpreter. The Makefile passes --editable; the Dockerfile installs a copy.
set -eu
cd "$(dirname "$0")/.."
[ -x .venv/bin/python ] || "${PYTHON:-python3.11}" -m venv .venv
extras=$1
shift
# -qq: print errors, but no warnings about the index of this machine.
exec .venv/bin/python -m pip install -qq --disable-pip-version-check --constraint "${LOCK:-requirements.lock}" "$@" ".[$extras]"
