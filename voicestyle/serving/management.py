"""What TorchServe says about one model at its management port."""

from __future__ import annotations

import http.client
import json
import os
from collections.abc import Mapping
from typing import Any, Final

from voicestyle.serving.ports import HOST

ANSWER_SECONDS: Final = 3.0  # less than a probe waits


class Management:
    """The management port, for one model.

    Never with `?customized=true`: with continuous batching TorchServe 0.12 puts that back into its queue for ever.
    """

    def __init__(self, port: int, model: str) -> None:
        self._port = port
        self._model = model

    def worker_pids(self) -> list[int]:
        """The process ids of workers that have the model loaded and are alive; empty while it cannot be asked."""
        # TorchServe goes on calling a worker READY for a while after it died.
        return [worker["pid"] for worker in self.workers() if worker["status"] == "READY" and _alive(worker["pid"])]

    def workers(self) -> list[Mapping[str, Any]]:
        """All workers, also those that are being started; empty while it cannot be asked."""
        return self._described().get("workers", [])

    def pending(self) -> int | None:
        """How many requests wait in TorchServe's own queue; None while it cannot be asked."""
        return self._described().get("jobQueueStatus", {}).get("pendingRequests")

    def _described(self) -> Mapping[str, Any]:
        connection = http.client.HTTPConnection(HOST, self._port, timeout=ANSWER_SECONDS)
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
        return True
    return True
