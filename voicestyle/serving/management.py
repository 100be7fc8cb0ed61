"""Reads the state of one model from TorchServe's management API."""

from __future__ import annotations

import http.client
import json
import os
from collections.abc import Mapping
from typing import Any, Final

from voicestyle.serving.ports import HOST

RESPONSE_SECONDS: Final = 3.0  # less than a probe waits


class Management:
    """The management API for one model.

    Never ask it with `?customized=true`: with continuous batching TorchServe 0.12 queues that request again for ever.
    """

    def __init__(self, port: int, model: str) -> None:
        self._port = port
        self._model = model

    def worker_pids(self) -> list[int]:
        """The process ids of running workers that have the model loaded; empty if TorchServe does not respond."""
        # TorchServe reports a worker as READY for a while after it died.
        return [worker["pid"] for worker in self.workers() if worker["status"] == "READY" and _alive(worker["pid"])]

    def workers(self) -> list[Mapping[str, Any]]:
        """All workers, including those that start; empty if TorchServe does not respond."""
        return self._describe().get("workers", [])

    def pending(self) -> int | None:
        """The number of requests in TorchServe's own queue; None if TorchServe does not respond."""
        return self._describe().get("jobQueueStatus", {}).get("pendingRequests")

    def _describe(self) -> Mapping[str, Any]:
        connection = http.client.HTTPConnection(HOST, self._port, timeout=RESPONSE_SECONDS)
        try:
            connection.request("GET", f"/models/{self._model}")
            return json.loads(connection.getresponse().read())[0]
        except (OSError, http.client.HTTPException, ValueError, LookupError):
            return {}
        finally:
            connection.close()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it runs as another user
    return True
