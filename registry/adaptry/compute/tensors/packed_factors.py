"""The factors of a weight's change as the compiled loop reads them, in memory that is reused for all weights.

B [out, r] is stored by rows, and A [r, in] in tiles of 32 columns. Fresh memory for each weight would cost
more (page faults) than copying the numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from adaptry.compute.tensors.llvm_ir import WIDTH
from adaptry.core.errors import InvalidWeights

Floats = NDArray[np.float32]


class PackedFactors:
    """The packed factors of the last call, in `up` and `down`. Not thread-safe."""

    def __init__(self) -> None:
        self.up: Floats = np.empty(0, np.float32)
        self.down: Floats = np.empty(0, np.float32)
        self._up: Floats = np.empty(0, np.float32)
        self._down: Floats = np.empty(0, np.float32)

    def pack_up(self, arrays: Sequence[Floats], scales: Sequence[float], rows: int, ranks: int) -> None:
        """Several B [out, r] side by side, each times its scale, if it has one. Raises `InvalidWeights`."""
        require_shape((sum(each.shape[1] for each in arrays),), (ranks,))
        self._up = _with_room(self._up, rows * ranks)
        self.up, done = self._up[: rows * ranks].reshape(rows, ranks), 0
        for place, each in enumerate(arrays):
            require_shape(each.shape, (rows, each.shape[1]))
            part = self.up[:, done : done + each.shape[1]]
            if scales:
                np.multiply(each, np.float32(scales[place]), out=part)
            else:
                np.copyto(part, each)
            done += each.shape[1]

    def pack_down(self, arrays: Sequence[Floats], columns: int) -> None:
        """Several A [r, in] below each other, in tiles [in/32, r, 32]. Raises `InvalidWeights`."""
        ranks, tiles = sum(len(each) for each in arrays), columns // WIDTH
        self._down = _with_room(self._down, ranks * columns)
        self.down, done = self._down[: ranks * columns].reshape(tiles, ranks, WIDTH), 0
        for each in arrays:
            require_shape(each.shape, (len(each), columns))
            part = self.down[:, done : done + len(each)]
            np.copyto(part, each.reshape(len(each), tiles, WIDTH).transpose(1, 0, 2))
            done += len(each)


def require_shape(found: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    """Raises `InvalidWeights` if the shape is not the expected one, since compiled code trusts shapes."""
    if found != wanted:
        raise InvalidWeights(
            f"an adapter's tensor has shape {list(found)}, but its weight needs {list(wanted)}"
        )


def _with_room(buffer: Floats, size: int) -> Floats:
    return buffer if buffer.size >= size else np.empty(size, np.float32)
