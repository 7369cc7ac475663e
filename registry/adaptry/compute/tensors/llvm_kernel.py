"""The fastest kernel, nearly as fast as memory: one pass over W in compiled code, without torch.

It supports weights that the compiled loop supports (unchanged dtype, rows with a multiple of 32 elements) and
that it sums in BLAS' order (products that are neither thin nor deep, see `kernel`). Torch merges all others.
"""

from __future__ import annotations

import ctypes
import mmap
import platform
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from adaptry.adapters.methods.row_formula import FormulaArrays, FormulaKind, RowFormula
from adaptry.compute.tensors.base_rows import PartnerRows, left_product, padded_ranks, row_bytes
from adaptry.compute.tensors.formula_ir import CompiledFormula
from adaptry.compute.tensors.kernel import (
    DEEP,
    THIN,
    BlockTally,
    KernelWeight,
    LoraTerm,
    MergeKernel,
    ReadRows,
    StoredMatrix,
)
from adaptry.compute.tensors.llvm_ir import CONVERT, PANEL, WIDTH, compile_once, is_supported
from adaptry.compute.tensors.packed_factors import PackedFactors, require_shape
from adaptry.compute.tensors.stored_array import as_array
from adaptry.compute.tensors.tally_ir import INFINITY
from adaptry.core.errors import InvalidWeights

_IN_FLOAT32: tuple[FormulaKind, ...] = ("normalised", "dense", "mapped", "rotated")
"""The formulas that need a block of rows in float32."""

_PART = 1024
"""Number of columns of a row whose products are summed in float32."""

_compiled = compile_once(CompiledFormula)  # one per formula, dtype and process; 40 ms each


class LlvmKernel(MergeKernel):
    """The kernel for the CPU; it releases the interpreter lock while it computes."""

    def __init__(self, capacity: int) -> None:
        maps = mmap.mmap(-1, capacity), mmap.mmap(-1, capacity)
        self.source, self._result = memoryview(maps[0]), memoryview(maps[1])
        self._from, self._to = (ctypes.addressof(ctypes.c_char.from_buffer(memory)) for memory in maps)
        self._wide = np.empty(0, np.float32)  # a block in float32, for the formulas that need one
        self._capacity = capacity
        self._packed = PackedFactors()
        self._change: _Change | None = None
        self._start: Callable[[int, NDArray[np.float32]], None] | None = None
        self._read: ReadRows | None = None
        self._partners = PartnerRows(capacity)
        self._merged = 0  # number of elements in the last block
        self._tally = (ctypes.c_int64 * 2)()

    @staticmethod
    def supports(weight: KernelWeight, rank: int) -> bool:
        return 1 <= rank <= DEEP and _supports(weight)

    @staticmethod
    def supports_formula(weight: KernelWeight, formula: RowFormula) -> bool:
        """Whether this kernel computes such a change. The order in which torch sums a norm is known only on
        x86.
        """
        if formula.kind == "mapped":
            is_plain = weight.dtype in CONVERT and weight.source_dtype == weight.dtype
            return is_plain and weight.rows > 0 and is_supported(weight.dtype)
        is_known = formula.kind not in ("normalised", "weighted") or platform.machine().lower() in (
            "x86_64",
            "amd64",
        )
        return is_known and formula.depth <= DEEP and _supports(weight) and not weight.is_transposed

    @staticmethod
    def prepare(weight: KernelWeight, formula: RowFormula | None) -> None:
        """Compiles the loop for such a weight, unless it was compiled before or the dtype is not supported.
        `formula` is None for LoRAs.
        """
        if weight.dtype in CONVERT and is_supported(weight.dtype):
            _compiled(formula.kind if formula else "sum", weight.dtype)

    def begin(self, weight: KernelWeight, terms: Sequence[LoraTerm]) -> None:
        numbers = _stacked(terms, weight.is_transposed)
        self._change, self._start = _Change(weight, "sum", numbers, self._packed), None

    def begin_formula(self, weight: KernelWeight, formula: RowFormula, read: ReadRows | None = None) -> None:
        if (formula.kind in _IN_FLOAT32 or formula.start) and not self._wide.size:
            self._wide = np.zeros(self._capacity // 2 + WIDTH, np.float32)
        self._start, self._read = formula.start, read
        try:
            numbers = formula.read()
            if numbers.of_product is not None:
                assert numbers.left is not None
                product = left_product(numbers.left, weight, partial(self._load, weight), self._from)
                numbers = numbers.of_product(product)
        except (LookupError, ValueError) as error:
            raise InvalidWeights(f"the tensors of an adapter do not fit its weight ({error})") from error
        self._change = _Change(weight, formula.kind, numbers, self._packed)

    def merge_rows(self, first: int, rows: int) -> memoryview:
        change = self._change
        assert change is not None, "begin comes first"
        columns = change.weight.columns
        if self._start is not None:
            self._write_start(change.weight, first, rows, self._from)
        if change.kind == "paired":
            self._combine_pairs(change, first, rows)
        elif change.kind == "dense":
            delta = self._wide[: rows * columns].reshape(rows, columns)
            change.write_rows(first, delta)
            change.program.run(self._from, delta.ctypes.data, self._to, delta.size, change.scale)
        elif change.kind == "mapped":
            wide = self._wide[: rows * columns]
            change.program.widen(self._from, wide.ctypes.data, wide.size)
            change.write_rows(first, wide.reshape(rows, columns))
            change.program.narrow(wide.ctypes.data, self._to, wide.size)
        else:
            is_wide = change.kind == "normalised"
            up = change.up.ctypes.data + 4 * first * change.stride
            if change.kind == "rotated":
                up = self._wide.ctypes.data
                change.program.widen(self._from, up, rows * columns)
            elif change.kind == "projected":
                projected = change.projected(self._from, rows)
                up = projected.ctypes.data
            change.program.run(
                self._from,
                change.down.ctypes.data,
                up,
                self._wide.ctypes.data if is_wide else self._to,
                *(rows, columns, change.rank, change.stride, change.tiles_per_panel),
                *(change.scale, change.divisor),
            )
            if is_wide:
                norms = change.vector.ctypes.data + 4 * first
                change.program.normalise(self._wide.ctypes.data, norms, self._to, rows, columns)
        self._merged = rows * columns
        return self._result[: rows * row_bytes(change.weight)]

    def tally(self) -> BlockTally | None:
        change = self._change
        if change is None or self._merged <= 0 or self._merged % WIDTH:
            return None
        change.program.tally(self._from, self._to, self._merged, ctypes.addressof(self._tally))
        largest, changed = self._tally
        is_base = self._start is None  # otherwise the adapter's rows have replaced those of W
        return BlockTally(largest < INFINITY[change.weight.dtype], changed if is_base else None)

    def _combine_pairs(self, change: _Change, first: int, rows: int) -> None:
        width = row_bytes(change.weight)
        load = partial(self._load, change.weight)
        for row, count, partners in self._partners.runs(first, rows, change.half, width, self._from, load):
            place = (row - first) * width
            change.program.run(
                self._from + place,
                partners,
                change.own_scales.ctypes.data + 4 * row,
                change.vector.ctypes.data + 4 * row,
                self._to + place,
                *(count, change.weight.columns),
            )

    def _load(self, weight: KernelWeight, first: int, rows: int, address: int) -> None:
        """Fills memory with rows of W, or with the rows by which the adapter replaces them."""
        assert self._read is not None, "formulas that read W are begun with `read`"
        if self._start is not None:
            self._write_start(weight, first, rows, address)
            return
        memory = (ctypes.c_char * (rows * row_bytes(weight))).from_address(address)
        self._read(first, memoryview(memory).cast("B"))

    def _write_start(self, weight: KernelWeight, first: int, rows: int, address: int) -> None:
        assert self._start is not None
        wide = self._wide[: rows * weight.columns]
        self._start(first, wide.reshape(rows, weight.columns))
        _compiled("mapped", weight.dtype).narrow(wide.ctypes.data, address, wide.size)


def product(up: NDArray[np.float32], down: NDArray[np.float32]) -> NDArray[np.float32]:
    """up [n, r] @ down [r, m] in float32, each element summed over the ranks in order from zero."""
    columns = -(-down.shape[1] // WIDTH) * WIDTH
    weight = KernelWeight("F32", "F32", len(up), columns)
    kernel = LlvmKernel(4 * len(up) * columns)
    np.frombuffer(kernel.source, np.float32)[:] = -0.0  # adding -0.0 changes no number
    padded = np.pad(down, ((0, 0), (0, columns - down.shape[1])))
    numbers = FormulaArrays(((up, padded),))
    kernel.begin_formula(weight, RowFormula("sum", len(down), lambda: numbers))
    found = np.frombuffer(kernel.merge_rows(0, len(up)), np.float32).reshape(len(up), columns)
    return found[:, : down.shape[1]]


def rotated(rows: NDArray[np.float32], blocks: NDArray[np.float32]) -> NDArray[np.float32]:
    """rows [n, in] times the matrix with `blocks` [in/b, b, b] on its diagonal, each element summed in order;
    b divides 32, or is a multiple of it.
    """
    kernel = LlvmKernel(max(1, rows.nbytes))
    np.frombuffer(kernel.source, np.float32)[:] = rows.reshape(-1)
    numbers = FormulaArrays(blocks=blocks)
    kernel.begin_formula(
        KernelWeight("F32", "F32", *rows.shape), RowFormula("rotated", blocks.shape[1], lambda: numbers)
    )
    return np.frombuffer(kernel.merge_rows(0, len(rows)), np.float32).reshape(rows.shape)


def _supports(weight: KernelWeight) -> bool:
    return (
        weight.source_dtype == weight.dtype
        and weight.rows >= THIN
        and weight.columns > 0
        and weight.columns % WIDTH == 0
        and is_supported(weight.dtype)
    )


def _stacked(terms: Sequence[LoraTerm], is_transposed: bool) -> FormulaArrays:
    """The sum of LoRAs. The scale of a single term is applied to the product, like in PEFT; several terms are
    scaled in `up` and stacked.
    """
    pairs = [(_wide(term.up), _wide(term.down)) for term in terms]
    scales = [term.scale for term in terms]
    if len(terms) == 1:
        return FormulaArrays((_transposed(*pairs[0]) if is_transposed else pairs[0],), scales[0])
    if not is_transposed:
        return FormulaArrays(tuple(pairs), up_scales=tuple(scales))
    scaled = zip(scales, pairs, strict=True)
    return FormulaArrays(tuple(_transposed(up * np.float32(scale), down) for scale, (up, down) in scaled))


def _transposed(
    up: NDArray[np.float32], down: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The factors of the transposed product."""
    return down.T, up.T


class _Change:
    """One weight's change: its program, and its numbers, packed once for all blocks."""

    def __init__(
        self, weight: KernelWeight, kind: FormulaKind, numbers: FormulaArrays, packed: PackedFactors
    ) -> None:
        self.weight, self.kind = weight, kind
        self.program = _compiled(kind, weight.dtype)
        self.scale, self.divisor = numbers.scale, numbers.divisor
        self.write_rows = numbers.write_rows or _no_rows
        self.vector = np.ascontiguousarray(() if numbers.vector is None else numbers.vector, np.float32)
        if kind == "rotated":
            self._set_blocks(numbers.blocks)
            return
        if kind == "paired":
            self._set_pairs(numbers)
            return
        ups, downs = [up for up, _ in numbers.factors], [down for _, down in numbers.factors]
        if kind == "projected":
            (right,), ups = ups, []
            require_shape(right.shape, (weight.columns, len(downs[0])))
            self._right = np.ascontiguousarray(padded_ranks(right).T)
            downs = [padded_ranks(downs[0].T).T]
        ranks = [len(down) for down in downs]
        self.rank = sum(ranks) if kind == "sum" else next(iter(ranks), 0)
        if kind == "row_scaled":
            ups = [self.vector[:, None]]
        elif kind == "weighted":
            ups.append(np.zeros((weight.rows, 1), np.float32))
            downs.append(self.vector[None])
        elif kind == "column_scaled":
            downs = [self.vector[None]]
        elif kind == "normalised":
            require_shape(self.vector.shape, (weight.rows,))
        self.stride = sum(len(down) for down in downs) or len(ups)
        self.tiles_per_panel = max(1, min(8, PANEL // (4 * WIDTH * max(1, self.stride))))
        if ups:
            packed.pack_up(ups, numbers.up_scales, weight.rows, self.stride)
        if downs:
            packed.pack_down(downs, weight.columns)
        self.up, self.down = packed.up, packed.down

    def projected(self, address: int, rows: int) -> NDArray[np.float32]:
        """W·B [rows, r] for rows of W. The sums of parts of a row are added in float64, then rounded."""
        columns, ranks = self.weight.columns, self.stride
        total = np.zeros((rows, ranks))
        width = row_bytes(self.weight) // columns
        for first in range(0, columns, _PART):
            tiles = min(_PART, columns - first) // WIDTH
            right = self._right.ctypes.data + 4 * first
            self.program.times(address + first * width, right, total.ctypes.data, rows, tiles, columns, ranks)
        return total.astype(np.float32)

    def _set_pairs(self, numbers: FormulaArrays) -> None:
        self.half = numbers.half
        assert numbers.own_scales is not None
        self.own_scales = np.ascontiguousarray(numbers.own_scales, np.float32)
        for scales in (self.own_scales, self.vector):
            require_shape(scales.shape, (self.weight.rows,))
        require_shape((self.weight.rows % (2 * self.half),), (0,))

    def _set_blocks(self, blocks: NDArray[np.float32] | None) -> None:
        """A rotation: each panel of tiles is one block, and W itself is B."""
        assert blocks is not None
        count, side, _ = blocks.shape
        require_shape((count * side,), (self.weight.columns,))
        if side < WIDTH:  # several blocks in one, since a tile has 32 columns
            blocks = _in_tiles(blocks)
        self.rank, self.stride = blocks.shape[1], self.weight.columns
        self.tiles_per_panel = self.rank // WIDTH
        tiles = blocks.reshape(len(blocks), self.rank, self.tiles_per_panel, WIDTH).transpose(0, 2, 1, 3)
        self.down, self.up = np.ascontiguousarray(tiles), np.empty(0, np.float32)


def _in_tiles(blocks: NDArray[np.float32]) -> NDArray[np.float32]:
    """Blocks [n, b, b] as blocks of 32 padded with zeros, which change no sum."""
    count, side, _ = blocks.shape
    each = WIDTH // side
    wider = np.zeros((count // each, each, side, each, side), np.float32)
    for place in range(each):
        wider[:, place, :, place] = blocks[place::each]
    return wider.reshape(-1, WIDTH, WIDTH)


def _no_rows(first: int, rows: NDArray[np.float32]) -> None:
    raise AssertionError("only a dense change has rows of its own")


def _wide(factor: StoredMatrix) -> NDArray[np.float32]:
    """The factor in fp32."""
    return as_array(factor.data, factor.dtype, factor.shape)
