"""The ports of one TorchServe and its supervisor."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from dataclasses import dataclass, fields
from typing import Final

HOST: Final = "127.0.0.1"


@dataclass(frozen=True)
class Ports:
    """TorchServe's ports, with its own defaults, and the operations port for probes and metrics."""

    inference: int = 8080
    management: int = 8081
    metrics: int = 8082
    grpc_inference: int = 7070
    grpc_management: int = 7071
    operations: int = 8083

    def __post_init__(self) -> None:
        numbers = [getattr(self, field.name) for field in fields(self)]
        if len(set(numbers)) != len(numbers) or not all(0 < number < 65536 for number in numbers):
            raise ValueError(f"ports must be distinct and between 1 and 65535, got {numbers}")

    @classmethod
    def free(cls) -> Ports:
        """Ports that are free at this moment."""
        with ExitStack() as stack:
            sockets = [stack.enter_context(socket.socket()) for _ in fields(cls)]
            for each in sockets:
                each.bind((HOST, 0))
            return cls(*(each.getsockname()[1] for each in sockets))

    def taken(self) -> list[int]:
        """TorchServe's ports that are in use; not the operations port, which is opened before TorchServe starts."""
        with ExitStack() as stack:
            taken: list[int] = []
            for field in fields(self):
                if field.name == "operations":
                    continue
                probe = stack.enter_context(socket.socket())
                # As TorchServe does: ports of connections that were just closed count as free.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((HOST, getattr(self, field.name)))
                except OSError:
                    taken.append(getattr(self, field.name))
            return taken
