"""Java's heap: all request bodies that TorchServe holds at once must fit into it, however large they are.

TorchServe keeps the body of a request until its response begins, and copies it to the worker in every call.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from voicestyle.errors import ServerError
from voicestyle.serving.model_config import read_model_config

log = logging.getLogger(__name__)

# Java allows the same amount of direct memory, which holds the copies; if that runs out, the server hangs.
BODY_SHARE: Final = 0.6
MACHINE_SHARE: Final = 0.5  # of the memory of the machine or container; the rest is for the worker and direct memory
HEAP: Final = re.compile(r"-Xmx(\d+)([kKmMgG]?)")
MIB: Final = 2**20
UNITS: Final = {"": 1, "k": 2**10, "m": MIB, "g": 2**30}
# The limit of a container, of cgroups 2 and 1.
CONTAINER_LIMITS: Final = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def java_arguments(properties: Mapping[str, str], archive: Path) -> str:
    """`vmargs` with a heap that is large enough for the archive, but never smaller than `vmargs` says.

    The heap gets at most half of the memory; if the bodies need more, a warning says so. Raises ServerError for a file
    that is no archive.
    """
    arguments = properties.get("vmargs", "")
    rows = most_requests(archive)
    found = HEAP.search(arguments)
    given = int(found[1]) * UNITS[found[2].lower()] // MIB if found else 0
    needed = math.ceil(rows * int(properties["max_request_size"]) / BODY_SHARE / MIB)
    heap = max(given, min(needed, int(MACHINE_SHARE * machine_memory()) // MIB))
    if heap < needed:
        log.warning(
            "%s lets TorchServe hold %d requests (batchSize, jobQueueSize), whose largest bodies need a Java heap of "
            "%d MiB; it gets %d MiB, which many large bodies at once can fill. Lower live_requests, queue or "
            "jobQueueSize, or set device: cpu, in handlers/model_config.yaml",
            archive.name,
            rows,
            needed,
            heap,
        )
    return arguments if heap == given else f"{HEAP.sub('', arguments)} -Xmx{heap}m".strip()


def most_requests(archive: Path) -> int:
    """The most requests that TorchServe holds for this archive: a full batch for each worker, and its own queue.

    Raises ServerError for a file that is no archive.
    """
    config = read_model_config(archive)
    try:
        return int(config["maxWorkers"]) * int(config["batchSize"]) + int(config["jobQueueSize"])
    except (KeyError, TypeError, ValueError) as error:
        rule = "the model config must have the numbers maxWorkers, batchSize and jobQueueSize"
        raise ServerError(
            f"{archive} must be an archive that `voicestyle archive` wrote; {rule}, got {error}"
        ) from None


def machine_memory() -> int:
    """Bytes of memory of this machine, or of the container if it has a limit."""
    import psutil  # of the extra `serve`

    memory = psutil.virtual_memory().total
    for file in CONTAINER_LIMITS:
        with suppress(OSError, ValueError):  # no such file, or "max"
            memory = min(memory, int(file.read_text(encoding="ascii")))
    return memory
