"""Which kernel bakes a piece: chosen once a merge, by what is installed and what was asked for."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from adaptry.errors import Invalid, Missing
from adaptry.merging.layout import Piece
from adaptry.tensors.lane import BLOCK, Lane, Term, Weight, room_for

_TORCH_REMEDY = "merging needs torch: pip install 'adaptry[torch]'"


@dataclass(frozen=True, slots=True)
class Kernels:
    """Makes a thread's lanes: the first that takes a piece bakes it. `block` is bytes of W at a time."""

    names: tuple[str, ...]
    block: int
    makers: tuple[Callable[[int], Lane], ...]

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """While lanes work: torch, where it is used or loaded anyway, keeps to one thread a lane."""
        if "torch" in self.names and "torch" in sys.modules:
            from adaptry.tensors.torch_lane import one_thread_each

            with one_thread_each():
                yield
        else:
            yield

    def bench(self, pieces: Iterable[Piece]) -> Bench:
        """Lanes with room for every piece to come, to be used by one thread."""
        room = max((room_for(*rows_of(piece), self.block) for piece in pieces), default=self.block)
        return Bench(self.makers, room)


class Bench:
    """One thread's lanes, each made when it is first needed."""

    def __init__(self, makers: Sequence[Callable[[int], Lane]], room: int) -> None:
        self._makers = makers
        self._room = room
        self._lanes: dict[int, Lane] = {}
        self.buffer = memoryview(bytearray(BLOCK))  # for bytes that only pass through

    def lane(self, weight: Weight, terms: Sequence[Term]) -> Lane:
        """The lane for this piece, begun."""
        for number, make in enumerate(self._makers):
            if number not in self._lanes:
                self._lanes[number] = make(self._room)
            lane = self._lanes[number]
            if lane.takes(weight, terms):
                lane.begin(weight, terms)
                return lane
        raise Invalid(f"no kernel bakes {weight.source_dtype} into {weight.dtype}")


def rows_of(piece: Piece) -> tuple[int, int]:
    """(rows, bytes of a row) of a piece as stored in the base; what is not a matrix is one long row a piece."""
    shape = piece.source.shape
    if len(shape) == 2 and piece.source.numel:
        return shape[0], piece.source.size // shape[0]
    width = piece.source.size // max(1, piece.source.numel)
    return piece.source.numel, width


def choose(device: str = "cpu", kernel: str = "auto") -> Kernels:
    """`kernel`: auto, torch or llvm. Raises `Missing` with the line that installs what is needed, `Invalid`."""
    if device != "cpu":
        return _on_device(device)
    if kernel not in ("auto", "torch", "llvm"):
        raise Invalid(f"no kernel called {kernel!r}: auto, torch or llvm")
    makers: list[tuple[str, Callable[[int], Lane]]] = []
    if kernel != "torch" and _has("llvmlite") and _has("numpy"):
        makers.append(("llvm", _llvm))
    elif kernel == "llvm":
        raise Missing("the llvm kernel needs llvmlite and numpy: pip install 'adaptry[torch]'")
    if kernel != "llvm":
        makers.append(("torch", _torch))
    return Kernels(tuple(name for name, _ in makers), BLOCK, tuple(make for _, make in makers))


def _has(module: str) -> bool:
    return module in sys.modules or importlib.util.find_spec(module) is not None


def _llvm(room: int) -> Lane:
    from adaptry.tensors.llvm_lane import LlvmLane

    return LlvmLane(room)


def _torch(room: int) -> Lane:
    if not _has("torch"):
        raise Missing(_TORCH_REMEDY)
    from adaptry.tensors.torch_lane import TorchLane

    return TorchLane(room)


def _on_device(device: str) -> Kernels:
    if not _has("torch"):
        raise Missing(_TORCH_REMEDY)
    import torch

    from adaptry.tensors.device_lane import BLOCK as DEVICE_BLOCK
    from adaptry.tensors.device_lane import DeviceLane

    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise Invalid(f"torch cannot use the device {device!r} here: {str(error).splitlines()[0]}") from error
    return Kernels((device,), DEVICE_BLOCK, (lambda room: DeviceLane(room, device),))
