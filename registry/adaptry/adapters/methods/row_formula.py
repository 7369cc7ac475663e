"""Changes of a matrix as values that compiled code computes, row by row, without torch.

If a method changes each row by one of a few formulas, it states which formula, and the numbers in it. The
formula's steps and roundings are those of the method's own function `weight` in torch, so both give the same
bits; a test compares them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, Protocol

from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.spec import ModuleSpec
from adaptry.core.lazy_dataclass import dataclass

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Doubles = NDArray[np.float64]

FormulaKind = Literal[
    "sum", "summed", "divided", "hadamard", "rounded", "weighted", "normalised", "multiplied", "affine",
    "row_scaled", "column_scaled", "dense", "mapped", "rotated", "projected", "paired",
]  # fmt: skip
"""With W in float32, P = B·A (a product of factors), ⌊x⌉ for x rounded to W's dtype, and one rounding at the
end:

- sum: W + s·P
- summed: W + s·(P₁ + P₂) (GraLoRA)
- divided: W + (s·P) / d
- hadamard: W + s·(P₁ ∘ P₂)
- rounded: W + ⌊s·P⌉
- weighted: W + ⌊P ∘ v⌉, with a number of v for each column (DeLoRA)
- normalised: v ∘ V / ‖V‖ by rows, with V = W + s·P (DoRA)
- multiplied: W + ⌊W ∘ ⌊P⌉⌉ (HiRA)
- affine: W + ⌊⌊W ∘ ⌊P₁⌉⌉ + ⌊P₂⌉⌉ (GLoRA)
- row_scaled, column_scaled: v ∘ W
- dense: W + s·D, where D is computed for each block of rows
- mapped: any function of a block of rows
- rotated: W·R, where R has square blocks on its diagonal (OFT)
- projected: W + s·(W·B)·A, with B [in, r] (HRA)
- paired: c ∘ W + v ∘ W', where each row of W' is the partner of W's (RoAd)

torch has no fixed order of summation for products with W. Here, they are summed more accurately than in
torch, so a few elements of a result differ by one unit in the last place.
"""


@dataclass(frozen=True, slots=True)
class FormulaArrays:
    """The numbers of a formula, all float32: `factors` are pairs of B [out, r] and A [r, in], with equal r;
    `scale` is s, `divisor` d. `vector` is v: [out], or [in] if columns are scaled. `write_rows(first, rows)`
    fills `rows` [n, in] with the rows of D from `first` on; if the kind is `mapped`, `rows` holds the rows of
    W, which the function replaces by those of the result. `blocks` [in/b, b, b] are those of R. The products
    of a `sum` are added rank by rank; `up_scales` are then factors of each B. If `of_product` is given, the
    numbers are `of_product(Lᵀ·W)`, where `left` is L [out, r], and the product [r, in] is in float64. If the
    kind is `paired`, `own_scales` is c [out], and a row's partner is in the other half of its group of
    2·`half` rows.
    """

    factors: tuple[tuple[Floats, Floats], ...] = ()
    scale: float = 1.0
    divisor: float = 1.0
    vector: Floats | None = None
    write_rows: Callable[[int, Floats], None] | None = None
    blocks: Floats | None = None
    up_scales: tuple[float, ...] = ()
    left: Floats | None = None
    of_product: Callable[[Doubles], FormulaArrays] | None = None
    own_scales: Floats | None = None
    half: int = 0


@dataclass(frozen=True, slots=True)
class RowFormula:
    """A change of a weight. `depth` is the rank of its products, 0 without products; `read` reads the
    numbers. `start(first, rows)` fills `rows` with the rows that the adapter has in place of W's, before the
    change; they are rounded to W's dtype. Without it, W is the base's. `uses_numpy` is True if the numbers
    come from functions of numpy whose last bits depend on numpy's version and on the processor.
    """

    kind: FormulaKind
    depth: int
    read: Callable[[], FormulaArrays]
    start: Callable[[int, Floats], None] | None = None
    uses_numpy: bool = False


def mapped(change: Callable[[Floats, int], NDArray[np.floating[Any]]]) -> FormulaArrays:
    """The numbers of a `mapped` formula: `change(rows, first)` returns the result's rows from those of W."""

    def write(first: int, rows: Floats) -> None:
        rows[:] = change(rows, first)

    return FormulaArrays(write_rows=write)


class ModuleArrays(Protocol):
    """The arguments of a formula: the module's tensors as arrays, and facts about module and base."""

    @property
    def config(self) -> AdapterConfig: ...

    @property
    def module(self) -> ModuleSpec: ...

    @property
    def dtype(self) -> str:
        """The dtype of the base's weight."""
        ...

    @property
    def orientation(self) -> str:
        """`linear` [out, in], or `embedding` [rows, dim]."""
        ...

    def __contains__(self, role: str) -> bool: ...

    def __getitem__(self, role: str) -> NDArray[Any]:
        """The tensor of a role, including a shared one: floats in float32, and integers unchanged."""
        ...

    def rows(self, role: str, first: int, last: int) -> NDArray[Any]:
        """Entries [first, last) of a role's tensor along its first dimension, as above."""
        ...

    def shape(self, role: str) -> tuple[int, ...]:
        """The shape of a role's tensor, from the header."""
        ...

    def multiplies(self, up: tuple[int, ...], down: tuple[int, ...]) -> bool:
        """Whether compiled code sums a product of matrices of these shapes in the order that torch does."""
        ...

    def product(self, up: str, down: str, rows: slice = slice(None)) -> Floats:
        """Rows of the matrix product of two roles, bit-equal to torch's if it `multiplies` them."""
        ...

    def weighted_products(self, ups: Floats, down: Floats, weights: Floats) -> Floats:
        """Σₙ (ups[:, n] · down) ∘ weights[n] in float32, with ups [rows, n, r], down [r, columns] and weights
        [n, columns]. Each product is summed rank by rank, then the products term by term.
        """
        ...

    def rotated(self, rows: Floats, blocks: Floats) -> Floats:
        """rows [n, in] times the matrix with `blocks` [in/b, b, b] on its diagonal, bit-equal to torch's; b
        is 16 or a multiple of 32.
        """
        ...

    def rounded(self, values: Floats) -> Floats:
        """The values rounded to the dtype of the base's weight."""
        ...


FormulaFunction = Callable[[ModuleArrays, tuple[int, int]], RowFormula | None]
"""`formula(parts, shape)` returns the change of a weight stored as [out, in] = `shape`, from headers only;
None if no formula describes this adapter's change. The shape of a bias is [out, 1], and that of an
embedding [rows, dim].
"""
