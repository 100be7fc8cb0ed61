"""The part of TorchServe's `ts.context.Context` that the handler uses; `idx` is a row of the call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol


class Context(Protocol):
    """One worker's context; `request_ids` is new in every call and maps a row to its request's id."""

    system_properties: Mapping[str, Any]
    model_yaml_config: Mapping[str, Any] | None
    request_ids: dict[int, str]
    stopping_criteria: Sequence[Callable[[bytes], bool | None]] | None

    def get_all_request_header(self, idx: int) -> Mapping[str, object]:
        """The request's headers, their names as the client spelled them."""
        ...

    def set_response_status(self, code: int = ..., phrase: str = ..., idx: int = ...) -> None:
        """Set the answer's status."""
        ...

    def set_response_header(self, idx: int, key: str, value: str) -> None:
        """Set a header of the answer."""
        ...

    def set_response_content_type(self, idx: int, value: str) -> None:
        """Set the answer's content type."""
        ...
