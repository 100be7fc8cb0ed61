#!/bin/sh
# sh scripts/build_image.sh: what the build stages of the Dockerfile run, whose arguments are these variables.
# Install the package with EXTRAS and REQUIREMENT by LOCK, check that torch is built for CUDA (a version; None for CPUs),
# and pack BUNDLE into model_store/voicestyle.mar.
set -eu
cd "$(dirname "$0")/.."
export LOCK
sh scripts/install.sh "$EXTRAS" ${REQUIREMENT:+"$REQUIREMENT"}
found=$(.venv/bin/python -c 'import torch; print(torch.version.cuda)')
if [ "${found%%.*}" != "${CUDA%%.*}" ]; then
    echo "torch must be built for CUDA $CUDA (None: for CPUs), but pip found a build for $found; pip's indexes are" \
        "PIP_INDEX_URL and PIP_EXTRA_INDEX_URL" >&2
    exit 1
fi
if [ "$BUNDLE" = demo ]; then .venv/bin/voicestyle bundle demo; fi
.venv/bin/voicestyle archive --bundle "bundles/$BUNDLE"
