"""Bytes that clients have not read yet, from Linux's table of TCP connections."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Final

TABLES: Final = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
ESTABLISHED: Final = "01"


def unsent_bytes(ports: Collection[int], tables: Collection[Path] = TABLES) -> int:
    """Bytes in the send queues of established connections at these local ports; 0 if the tables cannot be read.

    While a queue is not empty, the server process may hold further bytes of the same response.
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
