"""The operations of one captured step, counted on torch's meta device, where tensors have shapes and no values.

A view launches no kernel. A kernel reads its inputs and writes its results once, each element that is in memory.
"""

import math
import weakref
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from voicestyle.engine import Engine
from voicestyle.engine.step_graphs import WARM_UP_RUNS

aten = torch.ops.aten
ALLOCATIONS: Final = {
    aten.empty.memory_format,
    aten.empty_like.default,
    aten.empty_strided.default,
    aten.new_empty.default,
    aten.new_empty_strided.default,
    aten._unsafe_view.default,
}
OVERWRITING: Final = {aten.copy_.default, aten.fill_.Scalar, aten.fill_.Tensor, aten.zero_.default}  # read no old value
# Zeros, then a copy of the gradient into them.
TWO_KERNELS: Final = {aten.slice_backward.default, aten.select_backward.default, aten.constant_pad_nd.default}


@dataclass(frozen=True)
class Operation:
    """One operator of a step.

    flops: of a convolution or matrix product, a multiply-add as two; 0 for all others. moved: bytes read and written.
    matrices: for those with flops, the rows and columns of the result as matrices, and how many there are. grouped:
    whether it is a convolution with groups, here always one for each channel.
    """

    name: str
    kernels: int
    flops: int
    moved: int
    dtype: torch.dtype
    matrices: tuple[int, int, int] = (0, 0, 0)
    grouped: bool = False


@dataclass(frozen=True)
class StepCount:
    """The operations of a step, and the most bytes that its intermediate tensors need at once."""

    operations: Sequence[Operation]
    peak: int

    @property
    def kernels(self) -> int:
        """How many kernels are launched."""
        return sum(each.kernels for each in self.operations)

    @property
    def flops(self) -> int:
        """Of convolutions and matrix products, forward and backward."""
        return sum(each.flops for each in self.operations)

    @property
    def moved(self) -> int:
        """Bytes read and written by all kernels."""
        return sum(each.moved for each in self.operations)


class OperationCounter(TorchDispatchMode):
    """Counts the operators that run on the meta device while it is active."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[Operation] = []
        self._live: dict[int, int] = {}  # bytes of storages by their identity
        self._peak = 0

    @property
    def count(self) -> StepCount:
        """What was counted so far."""
        return StepCount(self.operations, self._peak)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run an operator and count it."""
        result = func(*args, **(kwargs or {}))
        if func.is_view:
            return result
        outputs = _tensors(result)
        self._track(_tensors(args, kwargs), outputs)
        if func in ALLOCATIONS or not outputs:
            return result
        flops = flop_registry.get(func.overloadpacket)
        self.operations.append(
            Operation(
                name=str(func).removeprefix("aten.").split(".")[0],
                kernels=_kernels(func, args),
                flops=int(flops(*args, **(kwargs or {}), out_val=result)) if flops else 0,
                moved=sum(_bytes(each) for each in _moved(func, args, kwargs, outputs)),
                dtype=outputs[0].dtype,
                matrices=_matrices(outputs[0]) if flops else (0, 0, 0),
                grouped=_groups(func, args) > 1,
            )
        )
        return result

    def _track(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        """Add the storages that an operator made; those of its inputs are older."""
        before = {id(each.untyped_storage()) for each in inputs}
        for each in outputs:
            storage = each.untyped_storage()
            if (key := id(storage)) not in before and key not in self._live:
                self._live[key] = storage.nbytes()
                weakref.finalize(storage, self._live.pop, key, None)
        self._peak = max(self._peak, sum(self._live.values()))


def count_steps(engine: Engine) -> dict[int, StepCount]:
    """The operations of a step by batch size, of an empty, batched engine on the meta device."""
    counts: dict[int, StepCount] = {}

    def capture(run: Any) -> Any:
        for _ in range(WARM_UP_RUNS):  # TorchScript compiles
            run()
        with OperationCounter() as counter:
            run()
        counts[run.args[0].stop] = counter.count
        return run

    engine.capture(capture)
    return counts


@contextmanager
def freezing_on_meta() -> Generator[None]:
    """Within the block, TorchScript can freeze modules on the meta device; it compares the values of constants."""

    def equal(first: Tensor, second: Tensor) -> bool:
        return first is second  # without values; "always equal" would merge different weights

    library = torch.library.Library("aten", "IMPL", "Meta")
    try:
        library.impl("equal", equal)
        yield
    finally:
        library._destroy()  # pyright: ignore[reportPrivateUsage]


def _moved(
    func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None, outputs: Sequence[Tensor]
) -> list[Tensor]:
    """The tensors that the kernels of an operator read or write, each as often as they do."""
    if func == aten.convolution_backward.default:
        gradient, features, weight, *_, mask = args
        return _tensors(gradient, weight if mask[0] else None, features if mask[1] else None, outputs)
    if func == aten.index.Tensor:  # reads the chosen elements
        return _tensors(args[1], outputs, outputs)
    if func == aten.index_put_.default:
        return _tensors(args[1], args[2], args[2])
    return _tensors(args[1:] if func in OVERWRITING else args, kwargs, outputs)


def _kernels(func: Any, args: tuple[Any, ...]) -> int:
    if func == aten.convolution_backward.default:
        return sum(args[-1])
    if func == aten.convolution.default and args[2] is not None:
        return 2  # torch adds the bias in a kernel of its own
    return 2 if func in TWO_KERNELS else 1


def _groups(func: Any, args: tuple[Any, ...]) -> int:
    if func == aten.convolution.default:
        return args[8]
    return args[9] if func == aten.convolution_backward.default else 1


def _matrices(result: Tensor) -> tuple[int, int, int]:
    """Rows, columns and number of the matrices in the result of a product, or of a convolution [N, C, H, W]."""
    if result.dim() == 4:
        return math.prod(result.shape) // result.shape[1], result.shape[1], 1
    return result.shape[-2], result.shape[-1], math.prod(result.shape[:-2])


def _tensors(*trees: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(trees) if isinstance(leaf, Tensor)]


def _bytes(tensor: Tensor) -> int:
    """Of the elements in memory; those of an expanded axis are one."""
    elements = math.prod(size for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride)
    return elements * tensor.element_size() if tensor.numel() else 0
