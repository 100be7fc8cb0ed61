"""The adapter to TorchServe 0.12: what it passes to the handler, and what it expects back.

Nothing else in this package knows TorchServe. The facts that this module builds on are checked by
`tests/serving/test_quirks_http.py` and `tests/serving/test_quirks_grpc.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from http import HTTPStatus
from typing import Any, Final, Protocol

from ts.service import Service

from voicestyle.worker.request_parser import MAX_FIELDS, Row
from voicestyle.worker.responses import Response

TOO_MANY_FIELDS: Final = "too many fields"  # replaces all fields of a request with more than MAX_FIELDS

_merge_fields: Final = Service.retrieve_data_for_inference


class Context(Protocol):
    """The part of `ts.context.Context` that is used here; `idx` is the index of a row.

    `request_ids` is new in every call and maps the index of a row to the id of its request.
    """

    system_properties: Mapping[str, Any]
    model_yaml_config: Mapping[str, Any] | None
    request_ids: dict[int, str]
    stopping_criteria: Sequence[Callable[[bytes], bool | None]] | None

    def get_all_request_header(self, idx: int) -> Mapping[str, object]:
        """The headers of the request, their names as the client spelled them."""
        ...

    def set_response_status(self, code: int = ..., phrase: str = ..., idx: int = ...) -> None:
        """Set the status of the response."""
        ...

    def set_response_header(self, idx: int, key: str, value: str) -> None:
        """Set a header of the response."""
        ...

    def set_response_content_type(self, idx: int, value: str) -> None:
        """Set the content type of the response."""
        ...


def read_rows(data: Sequence[Mapping[str, object]], context: Context) -> list[Row]:
    """The unfinished requests of one call of the handler.

    TorchServe passes a request in every call until it has its response, but leaves out fields and headers once a
    chunk of it was sent.
    """
    rows: list[Row] = []
    for index, fields in enumerate(data):
        headers = context.get_all_request_header(index)
        # HTTP headers are text. A gRPC row has none, only a mapping for each of its inputs.
        texts = {name: value for name, value in headers.items() if isinstance(value, str)}
        protocol = "http" if texts else "grpc"
        rows.append(Row(context.request_ids[index], protocol, None if TOO_MANY_FIELDS in fields else fields, texts))
    return rows


def send_responses(rows: Sequence[Row], responses: Mapping[str, Response], context: Context) -> list[bytes]:
    """Pass the responses by request id to TorchServe; returns what `handle` returns.

    A request without a response is left out of the reply by deleting its entry of `context.request_ids`, from which
    TorchServe encodes the reply. TorchServe then keeps the request and passes it again, body included, in the next
    call. So its response can be one plain message with its own status, headers and length, although they are known
    only at the end; and a gRPC call, which TorchServe drops after its first chunk, can share the batch.
    """
    bodies: list[bytes] = []
    criteria: list[bool | None] = []
    for index, row in enumerate(rows):
        response = responses.get(row.id)
        bodies.append(b"" if response is None else response.body)
        criteria.append(None if response is None else _stopping_criterion(response, row))
        if response is None:
            del context.request_ids[index]
            continue
        context.set_response_status(response.status, HTTPStatus(response.status).phrase, index)
        context.set_response_content_type(index, response.content_type)
        for name, value in response.headers.items():
            context.set_response_header(index, name, value)
    context.stopping_criteria = [lambda _, criterion=criterion: criterion for criterion in criteria]
    return bodies


def _stopping_criterion(response: Response, row: Row) -> bool | None:
    """None for a plain response, False for a chunk that others follow, True for the last chunk.

    For gRPC only True works: None ends the worker under StreamPredictions, and False drops the call. TorchServe sends
    no headers with a last chunk, so a response without an earlier chunk must be sent as a plain one.
    """
    if not response.is_final:
        return False
    return True if response.is_chunk or row.protocol == "grpc" else None


def limit_fields() -> None:
    """Replace the fields of a request with more than `MAX_FIELDS` by the one field `TOO_MANY_FIELDS`.

    TorchServe merges the fields of one name before the handler sees them, and does so in every call until the request
    has its response. A form that repeats an option a hundred thousand times would slow every call by seconds, so it is
    cut before the merging, where repeated fields are still separate, and rejected at its first call.
    """
    Service.retrieve_data_for_inference = staticmethod(_merge_limited)


def _merge_limited(batch: Sequence[MutableMapping[str, Any]]) -> Any:
    for request in batch:
        if len(request["parameters"]) > MAX_FIELDS:
            request["parameters"] = [{"name": TOO_MANY_FIELDS, "contentType": "", "value": b""}]
    return _merge_fields(batch)
