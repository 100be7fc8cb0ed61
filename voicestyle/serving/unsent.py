"""What this machine's clients did not fetch yet, from Linux's table of TCP connections."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Final

TABLES: Final = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
ESTABLISHED: Final = "01"


def unsent_bytes(ports: Collection[int], tables: Collection[Path] = TABLES) -> int:
    """Bytes that wait in the send queues of established connections at these local ports; 0 where it cannot be read.

    As long as one is not empty, the process behind it may hold more than the system took from it.
    """
    total = 0
    for table in tables:
        try:
            lines = table.read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            # sl local_address rem_address st tx_queue:rx_queue …, numbers in base 16 (proc(5))
            _, local, _, state, queues, *_ = line.split()
            if state == ESTABLISHED and int(local.rpartition(":")[2], 16) in ports:
                total += int(queues.partition(":")[0], 16)
    return total
