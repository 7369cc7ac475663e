"""Which kernel bakes a piece: chosen once a merge, by what is installed and what was asked for."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from adaptry.compute.merging.layout import OutputTensor
from adaptry.compute.tensors.kernel import BLOCK, KernelWeight, LoraTerm, MergeKernel, block_buffer_size
from adaptry.core.errors import Invalid, MissingDependency

_TORCH_REMEDY = "merging needs torch: pip install 'adaptry[torch]'"
_LLVM_TAKES = (
    "the llvm kernel takes weights that keep their dtype, of several rows of a multiple of 32 elements, and ranks "
    "that are at most 256 together"
)


@dataclass(frozen=True, slots=True)
class KernelChoice:
    """Makes a thread's lanes: the first that takes a piece bakes it. `block` is bytes of W at a time.

    `asked` is the kernel that was asked for by name, if any.
    """

    names: tuple[str, ...]
    block: int
    makers: tuple[Callable[[int], MergeKernel], ...]
    requested: str | None = None

    def check(self, pieces: Iterable[OutputTensor]) -> None:
        """Raises `Invalid` or `MissingDependency` where one of these pieces to bake needs a kernel that is not here."""
        pieces = list(pieces)
        if not _has("torch") and (whole := next((piece for piece in pieces if piece.is_whole), None)):
            raise MissingDependency(
                f"{whole.name} is made as a whole, which needs torch: pip install 'adaptry[torch]'"
            )
        if self.names != ("llvm",):
            return
        for piece in _beyond_llvm(pieces):
            if self.requested:
                raise Invalid(f"{piece.name} needs the torch kernel ({_LLVM_TAKES}): try --kernel auto")
            raise MissingDependency(f"{piece.name} needs torch ({_LLVM_TAKES}): pip install 'adaptry[torch]'")

    def names_for(self, pieces: Iterable[OutputTensor]) -> tuple[str, ...]:
        """The names of those that will bake these pieces."""
        pieces = list(pieces)
        uses_torch = any(piece.is_whole for piece in pieces)
        if self.names[0] != "llvm":
            return self.names if pieces else ()
        beyond = {id(piece) for piece in _beyond_llvm(pieces)}
        uses_llvm = any(not piece.is_whole and id(piece) not in beyond for piece in pieces)
        return (*(["llvm"] if uses_llvm else []), *(["torch"] if uses_torch or beyond else []))

    @contextlib.contextmanager
    def limit_torch_threads(self, pieces: Iterable[OutputTensor]) -> Iterator[None]:
        """While lanes bake these pieces: torch, where one of them needs it, keeps to one thread a lane."""
        pieces = list(pieces)
        is_streamed = "torch" in self.names and ("llvm" not in self.names or any(_beyond_llvm(pieces)))
        uses_torch = is_streamed or any(piece.is_whole for piece in pieces)
        if uses_torch:
            from adaptry.compute.tensors.torch_kernel import single_torch_threads

            with single_torch_threads():
                yield
        else:
            yield

    def for_thread(self, pieces: Iterable[OutputTensor]) -> ThreadKernels:
        """Lanes with room for every piece to come, to be used by one thread."""
        room = max(
            (block_buffer_size(*row_layout(piece), self.block) for piece in pieces), default=self.block
        )
        return ThreadKernels(self.makers, room)


class ThreadKernels:
    """One thread's lanes, each made when it is first needed."""

    def __init__(self, makers: Sequence[Callable[[int], MergeKernel]], room: int) -> None:
        self._makers = makers
        self._room = room
        self._lanes: dict[int, MergeKernel] = {}
        self.buffer = memoryview(bytearray(BLOCK))  # for bytes that only pass through

    def begin_kernel(self, weight: KernelWeight, terms: Sequence[LoraTerm]) -> MergeKernel:
        """The lane for this piece, begun."""
        for number, make in enumerate(self._makers):
            if number not in self._lanes:
                self._lanes[number] = make(self._room)
            lane = self._lanes[number]
            if lane.supports(weight, sum(term.down.shape[0] for term in terms)):
                lane.begin(weight, terms)
                return lane
        raise AssertionError(f"no kernel bakes {weight}, and `Kernels.check` comes first")


def _beyond_llvm(pieces: Iterable[OutputTensor]) -> Iterator[OutputTensor]:
    """Those that stream and that the llvm lane leaves to torch, which takes every piece of a plan."""
    from adaptry.compute.tensors.llvm_kernel import LlvmKernel

    for piece in pieces:
        if not piece.is_whole and not LlvmKernel.supports(
            kernel_weight(piece), sum(update.module.rank for update in piece.updates)
        ):
            yield piece


def row_layout(piece: OutputTensor) -> tuple[int, int]:
    """(rows, bytes of a row) of a piece as stored in the base; what is not a matrix is one long row a piece."""
    shape = piece.source.shape
    if len(shape) == 2 and piece.source.numel:
        return shape[0], piece.source.size // shape[0]
    width = piece.source.size // max(1, piece.source.numel)
    return piece.source.numel, width


def kernel_weight(piece: OutputTensor) -> KernelWeight:
    """What a lane must know of a piece."""
    rows, row_bytes = row_layout(piece)
    columns = row_bytes * piece.source.numel // max(1, piece.source.size)
    return KernelWeight(piece.source.dtype, piece.dtype, rows, columns, piece.is_transposed)


def choose_kernels(device: str = "cpu", kernel: str = "auto") -> KernelChoice:
    """`kernel`: auto, torch or llvm. Raises `MissingDependency` with the line that installs what is needed, `Invalid`."""
    if device != "cpu":
        return _on_device(device)
    if kernel not in ("auto", "torch", "llvm"):
        raise Invalid(f"no kernel called {kernel!r}: auto, torch or llvm")
    makers: list[tuple[str, Callable[[int], MergeKernel]]] = []
    if kernel != "torch" and _has("llvmlite") and _has("numpy"):
        makers.append(("llvm", _llvm))
    elif kernel == "llvm":
        raise MissingDependency("the llvm kernel needs llvmlite and numpy: pip install 'adaptry[torch]'")
    if kernel != "llvm" and _has("torch"):
        makers.append(("torch", _torch))
    if not makers:
        raise MissingDependency(_TORCH_REMEDY)
    names, lanes = zip(*makers, strict=True)
    return KernelChoice(names, BLOCK, lanes, None if kernel == "auto" else kernel)


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
    import torch

    from adaptry.compute.tensors.device_kernel import BLOCK as DEVICE_BLOCK
    from adaptry.compute.tensors.device_kernel import DeviceKernel

    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise Invalid(f"torch cannot use the device {device!r} here: {_first_sentence(error)}") from error
    return KernelChoice((device,), DEVICE_BLOCK, (lambda room: DeviceKernel(room, device),))


def _first_sentence(error: Exception) -> str:
    """Torch goes on with a list of all it was built with."""
    return str(error).splitlines()[0].split(". ")[0][:200]
