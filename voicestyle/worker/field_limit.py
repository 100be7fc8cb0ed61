"""How many fields a request may have, counted where repeated ones are still apart.

TorchServe merges the fields of one name before the handler sees them, and hands a request over again in each call
until it is answered, all of its fields included. So a form that repeats a valid option a hundred thousand times would
hold up every call of everybody's for seconds. It is cut down before the merging, and then refused at its first call.
"""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from typing import Any, Final

from ts.service import Service

MOST_FIELDS: Final = 32  # the audio, the options, and some to be refused by name
TOO_MANY: Final = "too many fields"  # the only field that is left of such a request

_merge: Final = Service.retrieve_data_for_inference


def bound_fields() -> None:
    """Have TorchServe's worker leave only the field `TOO_MANY` of a request with more than `MOST_FIELDS`."""
    Service.retrieve_data_for_inference = staticmethod(_bounded)


def _bounded(batch: Sequence[MutableMapping[str, Any]]) -> Any:
    for request in batch:
        if len(request["parameters"]) > MOST_FIELDS:
            request["parameters"] = [{"name": TOO_MANY, "contentType": "", "value": b""}]
    return _merge(batch)
