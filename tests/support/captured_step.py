"""Checks without a GPU that a step can be a CUDA graph: its operators on torch's `meta` device.

A meta tensor has a shape and a dtype and no values, so everything that needs a value fails there, and a tensor of the
host is one of another device, as beside a GPU's tensors. TorchScript compiles and runs a module for it as for others.
"""

from contextlib import suppress

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from voicestyle.engine.step_graphs import WARM_UP_RUNS

META = torch.device("meta")
FORBIDDEN = {
    torch.Tag.data_dependent_output: "returns values of the device to the host",
    torch.Tag.dynamic_output_shape: "has a result whose shape depends on values",
    torch.Tag.nondeterministic_seeded: "draws random numbers",
}
INDEXING = torch.ops.aten.index.Tensor  # its shape depends on values with masks only
FROM_NUMBERS = (torch.tensor, torch.as_tensor, torch.asarray, torch.from_numpy)
BY_INDEX = (Tensor.__getitem__, Tensor.__setitem__)


class OperatorRecorder(TorchDispatchMode):
    """Records the operators of a run on the meta device, and the faults for which a CUDA graph could not contain it."""

    def __init__(self):
        super().__init__()
        self.operators = []  # names, with shapes and dtypes of their results
        self.faults = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        inputs = tensors(args, kwargs)
        masked = any(each.dtype in (torch.bool, torch.uint8) for each in inputs[1:])
        forbidden = {} if func == INDEXING and not masked else FORBIDDEN
        self.faults += [f"{func} {reason}" for tag, reason in forbidden.items() if tag in func.tags]
        self._check_device(func, inputs)  # before the call, which may fail
        result = func(*args, **(kwargs or {}))
        outputs = tensors(result)
        self._check_device(func, outputs)
        self.operators.append((str(func), [(tuple(each.shape), each.dtype) for each in outputs]))
        return result

    def _check_device(self, func, found):
        self.faults += [f"{func} has a tensor on the {each.device}" for each in found if each.device != META]


class UploadRecorder(TorchFunctionMode):
    """Records where Python code makes tensors of numbers of the host, which a GPU would wait for.

    torch makes such a tensor on the meta device without any operator, so `OperatorRecorder` cannot see it.
    """

    def __init__(self):
        super().__init__()
        self.faults = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in FROM_NUMBERS or (func in BY_INDEX and any(isinstance(each, list) for each in indices(args[1]))):
            self.faults.append(f"{func.__name__} makes a tensor of numbers of the host")
        return func(*args, **(kwargs or {}))


class CheckedCapture:
    """A capture for `Engine.capture` that runs the step as CudaCapture does, and keeps the faults of the captured run.

    modules: the scripted modules of the step, which must have been compiled before the captured run.
    """

    def __init__(self, modules=(), warm_up_runs=WARM_UP_RUNS):
        self.faults = []
        self.operators = {}  # of the captured run, by its last row
        self._modules = modules
        self._warm_up_runs = warm_up_runs

    def __call__(self, run):
        rows = run.args[0]
        try:
            for _ in range(self._warm_up_runs):
                run()
            compiled = all(is_compiled(each) for each in self._modules)
            (operators, faults), (following, _) = record(run), record(run)
        except Exception as error:  # TorchScript and the kernels of the meta device raise many different exceptions
            faults = [*faults_of_failed(run), str(error).strip().split("\n")[-1]]
        else:
            self.operators[rows.stop] = [name for name, _ in operators]
            if not compiled:
                faults.append("modules are compiled in the captured run")
            if following != operators:
                faults.append(f"the captured run has {len(operators)} operators, the next one has others")
        self.faults += [f"{fault}, rows {rows.start}:{rows.stop}" for fault in dict.fromkeys(faults)]
        return run


def record(run):
    """The operators and the faults of a run."""
    with OperatorRecorder() as operators, UploadRecorder() as uploads:
        run()
    return operators.operators, operators.faults + uploads.faults


def faults_of_failed(run):
    """The faults up to the operator at which the run fails."""
    for _ in range(WARM_UP_RUNS):  # the last one compiles nothing
        with OperatorRecorder() as recorder, suppress(Exception):
            run()
    return recorder.faults


def is_compiled(module):
    """Whether the next call of a scripted module compiles nothing more, neither of its forward nor its backward."""
    try:
        plans = module.get_debug_state().execution_plans.values()
        backward = [state for plan in plans for state in plan.code.grad_executor_states()]
    except RuntimeError:  # torch has no optimised plan to show yet
        return False
    return bool(plans) and all(state.execution_plans for state in backward)


def tensors(*trees):
    return [leaf for leaf in tree_leaves(trees) if isinstance(leaf, Tensor)]


def indices(index):
    return index if isinstance(index, tuple) else (index,)
