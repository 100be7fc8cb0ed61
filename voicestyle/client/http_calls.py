"""What the two HTTP clients share: arguments for httpx, and what its answers and exceptions mean."""

from __future__ import annotations

import ssl
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

import httpx

from voicestyle.client.addresses import base_url, is_loopback, predictions_path, url_host
from voicestyle.client.answers import read_error
from voicestyle.client.ask import Ask
from voicestyle.client.errors import ServiceFailed, TimedOut, Unreachable
from voicestyle.client.records import Record
from voicestyle.client.results import Event, Face, Preview, Retrying
from voicestyle.client.retry import Settings

OPERATIONS: Final = "http://127.0.0.1:8083"  # where `voicestyle serve` tells its readiness
LOOK_SECONDS: Final = 5.0


def arguments(url: str, settings: Settings, tls: ssl.SSLContext | None) -> dict[str, Any]:
    """For httpx.Client and AsyncClient. Raises ValueError for a URL that is none."""
    return {
        "base_url": base_url(url),
        "headers": dict(settings.headers),
        "verify": True if tls is None else tls,
        "trust_env": not is_loopback(url_host(url)),
    }


def post(ask: Ask, settings: Settings, seconds: float) -> dict[str, Any]:
    """For one attempt of `seconds`."""
    return {
        "url": predictions_path(settings.model),
        "content": ask.audio,
        "headers": ask.headers(),
        "timeout": httpx.Timeout(seconds, connect=min(seconds, settings.connect_seconds)),
    }


def look(url: str) -> dict[str, Any]:
    """For a short question about the server's health."""
    return {"url": url, "timeout": LOOK_SECONDS}


def ready_url(operations: str) -> str:
    """Where the supervisor at `operations` tells whether the service is ready."""
    return f"{base_url(operations)}/ready"


def read_health(response: httpx.Response) -> str:
    """TorchServe's word. Raises ClientError if it gives none."""
    record = Record.parse(response.content)
    if response.status_code != 200:
        raise read_error(response.status_code, response.headers, response.content)
    if record is None:
        raise ServiceFailed("malformed", "the answer to a ping must be a JSON object")
    return record.text("status")


def read_readiness(response: httpx.Response) -> bool:
    """Whether the service is ready; 503 says that it is not. Raises ClientError for any other answer."""
    if response.status_code not in (200, 503):
        raise read_error(response.status_code, response.headers, response.content)
    return response.status_code == 200


@contextmanager
def translated() -> Generator[None]:
    """Raise this package's errors for those of httpx, and for asyncio's TimeoutError."""
    try:
        yield
    except (httpx.TimeoutException, TimeoutError) as error:
        raise TimedOut(f"no answer in time ({_describe(error)})") from error
    except httpx.TransportError as error:
        raise Unreachable(f"the connection failed ({_describe(error)})") from error


class Gathering:
    """A stream's previews, to be put into its face."""

    def __init__(self) -> None:
        self._previews: list[Preview] = []

    def add(self, event: Event) -> Face | None:
        """Take the next event; the face if that is it."""
        match event:
            case Preview():
                self._previews.append(event)
            case Retrying():
                self._previews.clear()
            case Face():
                return replace(event, previews=tuple(self._previews)) if self._previews else event
            case _:
                pass
        return None


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
