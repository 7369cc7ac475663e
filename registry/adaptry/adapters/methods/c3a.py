"""C3A: an update of circulant blocks, each given by one row (arXiv 2407.19342; PEFT `tuners/c3a`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.methods.method import Method, ModuleSize, ModuleTensors, Shapes, WeightSides
from adaptry.adapters.methods.row_formula import FormulaArrays, ModuleArrays, RowFormula
from adaptry.adapters.spec import ModuleSpec

if TYPE_CHECKING:
    from torch import Tensor

    from adaptry.adapters.methods.row_formula import Floats


def _module_size(shapes: Shapes, config: AdapterConfig) -> ModuleSize:
    rows, columns, size = shapes["kernel"]
    if (
        size != config.rank("block_size", 256)
        and size not in config.pattern_values("block_size_pattern").values()
    ):
        raise ValueError(f"the blocks have size {size}, which differs from the config")
    if not rows * columns:
        raise ValueError("there are no blocks")
    return ModuleSize(0, columns * size, rows * size)


def _cannot_adapt(weight: WeightSides, config: AdapterConfig) -> str | None:
    size = config.rank("block_size", 256)
    if config.pattern_values("block_size_pattern") or not (weight.fan_in % size or weight.fan_out % size):
        return None
    sides = f"{weight.fan_out:,}×{weight.fan_in:,}"
    return f"has blocks of {size:,}, which do not divide this base's weight of {sides}"


def _mismatch(module: ModuleSpec, shapes: Shapes, config: AdapterConfig, weight: WeightSides) -> str | None:
    size = shapes["kernel"][2]
    declared = config.value_for("block_size_pattern", module.path, config.rank("block_size", 256))
    return (
        None if size == declared else f"has blocks of {size:,}, but the config declares {str(declared)[:20]}"
    )


def _circulant(kernel: Tensor) -> Tensor:
    """The matrix [out, in] of the kernel [m, n, size], as the convolution of every unit vector, computed by
    FFT in PEFT's order of operations. The vectors are transformed in batches, which limits the memory.
    """
    import torch
    from torch.fft import fft, ifft

    _, columns, size = kernel.shape
    transformed, found = fft(kernel), []
    for first in range(0, columns * size, size):
        units = torch.zeros(size, columns * size)
        units[:, first : first + size] = torch.eye(size)
        turned = ifft(units.reshape(size, columns, size))
        sums = torch.einsum("...nb,mnb->...mb", turned, transformed)
        found.append(fft(sums).real.flatten(start_dim=1).T)
    return torch.cat(found, dim=1)


def _weight(weight: Tensor, parts: ModuleTensors) -> Tensor:
    return weight + _circulant(parts["kernel"]).to(weight.dtype) / weight.shape[-1]


def _formula(parts: ModuleArrays, shape: tuple[int, int]) -> RowFormula | None:
    """Computed without a Fourier transform: element (i, j) of a block is element (j − i) mod `size` of its
    kernel.
    """
    blocks, columns, size = parts.shape("kernel")
    if (blocks * size, columns * size) != shape:
        return None

    def read() -> FormulaArrays:
        import numpy as np
        from numpy.lib.stride_tricks import sliding_window_view

        kernel = parts["kernel"] / np.float32(columns * size)
        windows = sliding_window_view(np.concatenate((kernel, kernel), axis=2), size, axis=2)

        def write(first: int, rows: Floats) -> None:
            done = 0
            while done < len(rows):
                block, offset = divmod(first + done, size)
                count = min(size - offset, len(rows) - done)
                turned = windows[block, :, size - offset - count + 1 : size - offset + 1][:, ::-1]
                rows[done : done + count].reshape(count, columns, size)[:] = turned.transpose(1, 0, 2)
                done += count

        return FormulaArrays(write_rows=write)

    return RowFormula("dense", 0, read)


METHOD = Method(
    name="c3a",
    title="C3A",
    key_patterns={"c3a_kernel": "kernel"},
    tolerance="within rounding, and at least as exact as PEFT",
    module_size=_module_size,
    products=(("kernel",),),
    mismatch=_mismatch,
    cannot_adapt=_cannot_adapt,
    weight=_weight,
    formula=_formula,
)
