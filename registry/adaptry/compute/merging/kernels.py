"""Chooses the kernels of a merge once, according to what is installed and requested."""

from __future__ import annotations

import contextlib
import importlib.util
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from functools import partial

from adaptry.adapters.methods.row_formula import RowFormula
from adaptry.bases.hf_folder import HfCheckpoint
from adaptry.compute.merging.formulas import formula_of
from adaptry.compute.merging.io import ShardReader
from adaptry.compute.merging.layout import OutputTensor
from adaptry.compute.merging.lora_delta import read_term
from adaptry.compute.tensors.kernel import BLOCK, KernelWeight, MergeKernel, block_buffer_size
from adaptry.core.errors import Invalid, MissingDependency
from adaptry.core.lazy_dataclass import dataclass

_TORCH_REMEDY = "merging needs torch: pip install 'adaptry[torch]'"
_LLVM_TAKES = (
    "the llvm kernel supports weights that keep their dtype, with several rows of a multiple of 32 elements,"
    " and a sum of ranks of at most 192"
)


@dataclass(frozen=True, slots=True)
class KernelChoice:
    """Creates a thread's kernels; the first that supports a tensor merges it. `block` is the size in bytes of
    W's blocks, and `requested` the name of the requested kernel, if any.
    """

    names: tuple[str, ...]
    block: int
    makers: tuple[Callable[[int], MergeKernel], ...]
    requested: str | None = None

    def formula(self, tensor: OutputTensor) -> RowFormula | None:
        """The tensor's change as a formula that the compiled kernel computes; None if it has no formula."""
        if not tensor.is_whole or "llvm" not in self.names:
            return None
        found = formula_of(tensor)
        if found is None:
            return None
        from adaptry.compute.tensors.llvm_kernel import LlvmKernel

        return found if LlvmKernel.supports_formula(kernel_weight(tensor), found) else None

    def is_streamed(self, tensor: OutputTensor) -> bool:
        """Whether a kernel merges the tensor in blocks of rows; else it is computed in torch."""
        return not tensor.is_whole or self.formula(tensor) is not None

    def check(self, tensors: Iterable[OutputTensor]) -> None:
        """Raises `Invalid`, `MissingDependency` if a tensor needs a kernel that is not available."""
        tensors = list(tensors)
        if not _has("torch") and (
            whole := next((each for each in tensors if not self.is_streamed(each)), None)
        ):
            raise MissingDependency(
                f"{whole.name} is computed as a whole, which needs torch: pip install 'adaptry[torch]'"
            )
        if self.names != ("llvm",):
            return
        for tensor in _beyond_llvm(tensors):
            if self.requested:
                raise Invalid(f"{tensor.name} needs the torch kernel ({_LLVM_TAKES}): try --kernel auto")
            raise MissingDependency(
                f"{tensor.name} needs torch ({_LLVM_TAKES}): pip install 'adaptry[torch]'"
            )

    def prepare(self, tensors: Iterable[OutputTensor]) -> None:
        """Compiles the loop for the first tensor that needs one, before threads wait for it."""
        if "llvm" not in self.names:
            return
        from adaptry.compute.tensors.llvm_kernel import LlvmKernel

        for tensor in tensors:
            formula = self.formula(tensor)
            if formula is not None or not tensor.is_whole:
                LlvmKernel.prepare(kernel_weight(tensor), formula)
                return

    def names_for(self, tensors: Iterable[OutputTensor]) -> tuple[str, ...]:
        """The names of the kernels that will merge these tensors."""
        tensors = list(tensors)
        uses_torch = not all(self.is_streamed(tensor) for tensor in tensors)
        if self.names[0] != "llvm":
            return self.names if tensors else ()
        beyond = {id(tensor) for tensor in _beyond_llvm(tensors)}
        uses_llvm = any(self.is_streamed(tensor) and id(tensor) not in beyond for tensor in tensors)
        return (*(["llvm"] if uses_llvm else []), *(["torch"] if uses_torch or beyond else []))

    @contextlib.contextmanager
    def limit_threads(self, tensors: Iterable[OutputTensor]) -> Iterator[None]:
        """During the block, limits numpy to one thread for each kernel; torch too, if a kernel for these
        tensors uses it.
        """
        tensors = list(tensors)
        uses_torch = any(name != "llvm" for name in self.names_for(tensors))
        if uses_torch or any((found := self.formula(each)) and found.kind == "dense" for each in tensors):
            from adaptry.compute.tensors.freed_memory import keep_freed_memory

            keep_freed_memory()
        with contextlib.ExitStack() as limits:
            if "llvm" in self.names:
                from adaptry.compute.tensors.blas_threads import single_blas_threads

                limits.enter_context(single_blas_threads())
            if uses_torch:
                from adaptry.compute.tensors.torch_kernel import single_torch_threads

                limits.enter_context(single_torch_threads())
            yield

    def for_thread(self, tensors: Iterable[OutputTensor]) -> ThreadKernels:
        """Kernels for one thread, with buffers that are large enough for all these tensors."""
        room = max(
            (block_buffer_size(*row_layout(tensor), self.block) for tensor in tensors), default=self.block
        )
        return ThreadKernels(self, room)


def compute_on_one_thread(kernels: Iterable[str]) -> None:
    """From now on, numpy in this process and torch in this thread compute on one thread, if these kernels use
    them; with more threads, some bits would change. Each thread must call this, because MKL does not apply
    the limit that another thread set. Names may be followed by a version.
    """
    kernels = tuple(kernels)
    if any(kernel.startswith("llvm") for kernel in kernels):
        from adaptry.compute.tensors.blas_threads import limit_blas_threads

        limit_blas_threads()
    if any(not kernel.startswith(("llvm", "numpy")) for kernel in kernels):
        import torch

        torch.set_num_threads(1)


class ThreadKernels:
    """One thread's kernels, each created on first use."""

    def __init__(self, choice: KernelChoice, room: int) -> None:
        self._choice = choice
        self._room = room
        self._kernels: dict[int, MergeKernel] = {}
        self.buffer = memoryview(bytearray(BLOCK))  # for copied bytes

    def is_streamed(self, tensor: OutputTensor) -> bool:
        """Like `KernelChoice.is_streamed`."""
        return self._choice.is_streamed(tensor)

    def begin_kernel(self, tensor: OutputTensor, base: ShardReader) -> MergeKernel:
        """The kernel for this streamed tensor, after its `begin`. Raises `InvalidWeights`."""
        weight = kernel_weight(tensor)
        formula = self._choice.formula(tensor)
        if formula is not None:
            kernel = self._kernel(self._choice.names.index("llvm"))
            kernel.begin_formula(weight, formula, partial(_read_rows, base, tensor))
            return kernel
        terms = [read_term(update) for update in tensor.updates]
        rank = sum(term.down.shape[0] for term in terms)
        for number in range(len(self._choice.makers)):
            kernel = self._kernel(number)
            if kernel.supports(weight, rank):
                kernel.begin(weight, terms)
                return kernel
        raise AssertionError(f"no kernel merges {weight}, and `KernelChoice.check` comes first")

    def _kernel(self, number: int) -> MergeKernel:
        if number not in self._kernels:
            self._kernels[number] = self._choice.makers[number](self._room)
        return self._kernels[number]


def _read_rows(base: ShardReader, tensor: OutputTensor, first: int, into: memoryview) -> None:
    base.read(tensor.shard, into, tensor.source.start + first * row_layout(tensor)[1])


def _beyond_llvm(tensors: Iterable[OutputTensor]) -> Iterator[OutputTensor]:
    """Streamed tensors that the llvm kernel does not support; torch supports every tensor of a plan."""
    from adaptry.compute.tensors.llvm_kernel import LlvmKernel

    for tensor in tensors:
        if not tensor.is_whole and not LlvmKernel.supports(
            kernel_weight(tensor), sum(update.module.rank for update in tensor.updates)
        ):
            yield tensor


def row_layout(tensor: OutputTensor) -> tuple[int, int]:
    """(rows, bytes per row) of a tensor as stored in the base; a tensor that is not a matrix is one row."""
    shape = tensor.source.shape
    if len(shape) == 2 and tensor.source.numel:
        return shape[0], tensor.source.size // shape[0]
    width = tensor.source.size // max(1, tensor.source.numel)
    return tensor.source.numel, width


def kernel_weight(tensor: OutputTensor) -> KernelWeight:
    """The description of a tensor for a kernel."""
    rows, row_bytes = row_layout(tensor)
    columns = row_bytes * tensor.source.numel // max(1, tensor.source.size)
    return KernelWeight(tensor.source.dtype, tensor.dtype, rows, columns, tensor.is_transposed)


def choose_kernels(device: str = "cpu", kernel: str = "auto") -> KernelChoice:
    """`kernel` is auto, torch or llvm. Raises `MissingDependency` (with the command that installs the kernel)
    and `Invalid`.
    """
    if device != "cpu":
        return _on_device(device)
    if kernel not in ("auto", "torch", "llvm"):
        raise Invalid(f"unknown kernel {kernel!r} (one of: auto, torch, llvm)")
    makers: list[tuple[str, Callable[[int], MergeKernel]]] = []
    if kernel != "torch" and _has("llvmlite") and _has("numpy"):
        makers.append(("llvm", _llvm))
    elif kernel == "llvm":
        raise MissingDependency("the llvm kernel needs llvmlite and numpy: pip install 'adaptry[torch]'")
    if kernel != "llvm" and _has("torch"):
        makers.append(("torch", _torch))
    if not makers:
        raise MissingDependency(_TORCH_REMEDY)
    names, kernels = zip(*makers, strict=True)
    return KernelChoice(names, BLOCK, kernels, None if kernel == "auto" else kernel)


def compile_ahead(pool: Executor, checkpoint: HfCheckpoint, device: str, kernel: str) -> None:
    """Compiles the loop that the merge of a LoRA into most of these weights needs in `pool`, while a merge is
    planned. If the plan needs another loop, this one is not used.

    The caller's thread imports the compiler. If another thread imported it meanwhile, Ctrl-C could leave the
    interpreter's import lock with this thread (CPython acquires it outside of its `try`), and both would wait
    forever.
    """
    if device != "cpu" or kernel == "torch" or not (_has("llvmlite") and _has("numpy")):
        return
    from adaptry.compute.tensors.llvm_kernel import LlvmKernel

    sizes: Counter[str] = Counter()
    for tensor in checkpoint.tensors.values():
        sizes[tensor.dtype] += tensor.size
    for dtype, _ in sizes.most_common(1):
        pool.submit(LlvmKernel.prepare, KernelWeight(dtype, dtype, 1, 1), None)


def _has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _llvm(room: int) -> MergeKernel:
    from adaptry.compute.tensors.llvm_kernel import LlvmKernel

    return LlvmKernel(room)


def _torch(room: int) -> MergeKernel:
    from adaptry.compute.tensors.torch_kernel import TorchKernel

    return TorchKernel(room)


def _on_device(device: str) -> KernelChoice:
    if not _has("torch"):
        raise MissingDependency(_TORCH_REMEDY)
    from adaptry.compute.tensors.device_kernel import BLOCK as DEVICE_BLOCK
    from adaptry.compute.tensors.device_kernel import DeviceKernel
    from adaptry.compute.tensors.usable_device import require_usable_device

    require_usable_device(device)
    return KernelChoice((device,), DEVICE_BLOCK, (lambda room: DeviceKernel(room, device),))
