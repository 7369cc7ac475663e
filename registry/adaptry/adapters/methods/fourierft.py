"""FourierFT: trained Fourier coefficients at random positions (arXiv 2405.03003; PEFT `tuners/fourierft`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.methods.method import Method, ModuleSize, ModuleTensors, Shapes, WeightSides, add_delta
from adaptry.adapters.methods.random_projections import drawn_positions, matrix_sides, positions
from adaptry.adapters.methods.row_formula import FormulaArrays, ModuleArrays, RowFormula
from adaptry.adapters.spec import ModuleSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from adaptry.adapters.methods.row_formula import Floats


def coefficients(shapes: Shapes, config: AdapterConfig, default: int) -> ModuleSize:
    """The size of a module whose number of coefficients the config declares. The coefficients do not
    determine its sides.
    """
    (count,) = shapes["spectrum"]
    known = (
        config.fields.get("n_frequency", default),
        *config.pattern_values("n_frequency_pattern").values(),
    )
    if count not in known:
        raise ValueError(f"there are {count} coefficients, which differs from the config")
    return ModuleSize(0, 0, 0)


def too_many_coefficients(
    module: ModuleSpec, shapes: Shapes, config: AdapterConfig, weight: WeightSides
) -> str | None:
    (count,) = shapes["spectrum"]
    declared = config.value_for("n_frequency_pattern", module.path, config.fields.get("n_frequency", count))
    if count != declared and not config.flag("proportional_parameters"):
        return f"has {count:,} coefficients, but the config declares {str(declared)[:20]}"
    elements = weight.fan_out * weight.fan_in
    if count <= elements:
        return None
    return f"has {count:,} coefficients, but this base's weight has {elements:,} elements"


def more_than_elements(weight: WeightSides, config: AdapterConfig, default: int) -> str | None:
    """Why PEFT raises an error: it draws a different element for each coefficient, and the weight has too
    few.
    """
    count = config.fields.get("n_frequency", default)
    elements = weight.fan_out * weight.fan_in
    if config.pattern_values("n_frequency_pattern") or type(count) is not int or count <= elements:
        return None
    return f"gets {count:,} coefficients, but this base's weight has only {elements:,} elements"


def _scale(config: AdapterConfig, module: ModuleSpec) -> float:
    return config.number("scaling", 150.0)


def _delta(parts: ModuleTensors, shape: tuple[int, ...]) -> Tensor:
    import torch

    fan_out, fan_in = matrix_sides(parts, shape)
    spectrum = torch.zeros(fan_out, fan_in)
    spectrum[positions(parts, len(parts["spectrum"]), fan_out, fan_in)] = parts["spectrum"]
    update: Tensor = torch.fft.ifft2(spectrum).real * parts.module.scale
    return update.T if parts.orientation == "conv1d" else update


def _formula(parts: ModuleArrays, shape: tuple[int, int]) -> RowFormula | None:
    if len(parts.shape("spectrum")) != 1 or not 0 < parts.shape("spectrum")[0] <= shape[0] * shape[1]:
        return None

    def read() -> FormulaArrays:
        spectrum = parts["spectrum"]
        places = drawn_positions(parts.config, len(spectrum), *shape)
        return FormulaArrays(write_rows=_UpdateRows(spectrum, places, parts.module.scale, shape, parts.dtype))

    return RowFormula("dense", 0, read, uses_numpy=True)


_ROWS_AT_ONCE = 16
"""Maximum number of rows computed together: with 1,000 coefficients, their terms fit in an L2 cache."""
_MAX_TERMS = 1 << 18
"""Maximum number of terms of these rows (8 MB), unless a single row has more."""


class _UpdateRows:
    """Computes rows of the update: sums over the few coefficients along the outputs, then an inverse real
    Fourier transform along the inputs. A coefficient in the second half of the columns counts as the complex
    conjugate of one in the first half. The transform is computed in float64 for float32 weights, and in
    float32 for half-precision weights.
    """

    def __init__(
        self,
        spectrum: Floats,
        places: tuple[NDArray[np.int64], NDArray[np.int64]],
        scale: float,
        shape: tuple[int, int],
        dtype: str,
    ) -> None:
        import numpy as np

        (self._fan_out, self._fan_in), (turns, columns) = shape, places
        self._precision = np.complex128 if dtype == "F32" else np.complex64
        is_mirrored = 2 * columns > self._fan_in
        columns = np.where(is_mirrored, self._fan_in - columns, columns)
        # Coefficients of the same column go to different levels, because `halves[columns] += …` would add
        # only one of them.
        order = np.argsort(columns, kind="stable")
        _, starts, counts = np.unique(columns[order], return_index=True, return_counts=True)
        levels = np.arange(len(columns)) - np.repeat(starts, counts)
        order = order[np.argsort(levels, kind="stable")]
        ends = np.cumsum(np.bincount(levels)).tolist()
        self._levels = [(columns[order[a:b]], slice(a, b)) for a, b in zip([0, *ends], ends, strict=False)]
        self._turns = np.where(is_mirrored, -turns, turns)[order]
        is_real = (columns == 0) | (2 * columns == self._fan_in)
        self._amplitudes = (
            spectrum.astype(np.float64) * (scale / self._fan_out) * np.where(is_real, 1.0, 0.5)
        )[order]
        self._roots = np.exp(2j * np.pi * (np.arange(self._fan_out) / self._fan_out))
        self._together = together = max(1, min(_ROWS_AT_ONCE, _MAX_TERMS // len(order)))
        angles = self._turns[:, None] * np.arange(together)
        self._steps = self._roots[angles % self._fan_out]
        self._terms = np.empty_like(self._steps)
        self._halves = np.empty((self._fan_in // 2 + 1, together), self._precision)

    def __call__(self, first: int, rows: Floats) -> None:
        for start in range(0, len(rows), self._together):
            self._write(first + start, rows[start : start + self._together])

    def _write(self, first: int, rows: Floats) -> None:
        import numpy as np

        terms, halves = self._terms[:, : len(rows)], self._halves[:, : len(rows)]
        start = self._amplitudes * self._roots[self._turns * first % self._fan_out]
        np.multiply(self._steps[:, : len(rows)], start[:, None], out=terms)
        halves.fill(0)
        for columns, part in self._levels:
            halves[columns] += terms[part]
        rows[:] = np.fft.irfft(halves.T, self._fan_in, axis=1)


METHOD = Method(
    name="fourierft",
    title="FourierFT",
    key_patterns={"fourierft_spectrum": "spectrum"},
    tolerance="within rounding, and at least as exact as PEFT; positions are those torch has drawn so far",
    module_size=lambda shapes, config: coefficients(shapes, config, 1000),
    products=(("spectrum",),),
    scale=_scale,
    weight=add_delta(_delta),
    formula=_formula,
    mismatch=too_many_coefficients,
    cannot_adapt=lambda weight, config: more_than_elements(weight, config, 1000),
)
