"""Rows of a batch that go through the networks in parts which fit into the memory of the device."""

import logging
from collections.abc import Callable
from typing import TypeVar

from voicestyle.devices import free_memory, is_out_of_memory

log = logging.getLogger("voicestyle.engine")

T = TypeVar("T")


class RowParts:
    """Calls a function with all rows at once until the device runs out of memory; from then on with at most `most`.

    Each lack of memory halves the number of rows that were tried, for good: what was free once may be so again, but a
    failed attempt costs a step.
    """

    def __init__(self, most: int) -> None:
        self.most = most

    def run(self, rows: slice, function: Callable[[slice], T]) -> list[T]:
        """The results of consecutive parts of `rows`. A call that raises must change nothing, as it may be repeated.

        Raises what `function` does, apart from a lack of memory for more than one row.
        """
        found: list[T] = []
        first = rows.start
        while first < rows.stop:
            part = slice(first, min(first + self.most, rows.stop))
            try:
                found.append(function(part))
                first = part.stop
                continue
            except Exception as error:
                tried = part.stop - first
                if tried == 1 or not is_out_of_memory(error):
                    raise
            # Not inside the handler: its error holds the frames of the failed call, and these hold their tensors.
            free_memory()
            self.most = tried // 2
            log.warning(
                "the device has too little memory for a step of %d faces at once; from now on it takes %d at once",
                tried,
                self.most,
            )
        return found
