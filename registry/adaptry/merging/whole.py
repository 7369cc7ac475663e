"""One tensor changed as a whole: read, changed in torch, written. One tensor a thread is in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptry.adapter.header import TensorInfo
from adaptry.errors import InvalidWeights
from adaptry.merging.changes import apply
from adaptry.merging.layout import Piece
from adaptry.merging.output import Output

if TYPE_CHECKING:
    from torch import Tensor

_PART = 64 << 20


def bake_whole(piece: Piece, output: Output) -> None:
    """Raises `InvalidWeights` where a change does not fit the tensor after all."""
    import torch

    from adaptry.merging.parts import DTYPES

    def read_bias() -> Tensor | None:
        return None if piece.bias is None else _read(output, piece.bias.shard, piece.bias.info)

    with torch.inference_mode():
        stored = _read(output, piece.shard, piece.source)
        try:
            result = apply(piece.changes, stored, read_bias)
        except (
            LookupError,
            RuntimeError,
            ValueError,
        ) as error:  # torch's words for tensors that do not go together
            raise InvalidWeights(
                f"what an adapter holds for {piece.name} does not fit it ({error}); check the adapter against its base"
            ) from error
        if result.shape != piece.shape:
            raise InvalidWeights(
                f"an adapter would make {piece.name} {list(result.shape)}, and it is {list(piece.shape)}; check the "
                "adapter against its base"
            )
        changed = result.to(DTYPES[piece.dtype]).contiguous()
        output.write(changed.view(-1).view(torch.uint8).numpy().data, piece.offset)


def _read(output: Output, shard: str, info: TensorInfo) -> Tensor:
    from adaptry.merging.parts import as_tensor

    data = bytearray(info.size)
    view = memoryview(data)
    for start in range(0, info.size, _PART):
        output.read(shard, view[start : start + _PART], info.start + start)
    return as_tensor(data, info)
