"""Heat maps by layer and module, and spectra by kind of module, as shapes for SVG with their tables.

All maps of a page have the same rows and columns, so that they can be compared cell by cell.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from adaptry.adapters.module_layers import NO_LAYER, in_model_order, layer_and_kind
from adaptry.adapters.weight_statistics import ModuleStatistics, WeightDistance, WeightStatistics
from adaptry.core.lazy_dataclass import dataclass

MAX_LAYERS, MAX_KINDS = 128, 24
"""Maximum number of rows and columns that are drawn."""
LEVELS = 8
"""Colours of a heat map; the stylesheet has one for each."""
UNRELATED = math.sqrt(2)
"""About the distance of two unrelated updates with the same norm: the darkest colour begins there."""
CELL, ROW = 30, 14
SPECTRUM_WIDTH, SPECTRUM_HEIGHT = 240, 110
_LEFT, _LETTER, _MARGIN = 44, 4.4, 14
_EDGE = 6
_NUMBER = re.compile(r"\.\d+(?=\.|$)")

SCALE = tuple(f"M{16 * level} 0h14v12h-14z" for level in range(LEVELS))
"""The legend of a heat map: a drawing for each colour, in a box of `SCALE_SIZE`."""
SCALE_SIZE = (16 * LEVELS, 12)
SPECTRUM_BASE = SPECTRUM_HEIGHT - _EDGE
"""Where the line of zero is in a drawing of singular values."""

Place = tuple[str, str]
"""A layer, and a kind of module in it."""


@dataclass(frozen=True, slots=True)
class Axes:
    """The layers and kinds that are drawn, with short names, and the number of all layers and kinds."""

    layers: tuple[str, ...]
    kinds: tuple[str, ...]
    layer_names: tuple[str, ...]
    kind_names: tuple[str, ...]
    all_layers: int
    all_kinds: int

    @property
    def is_whole(self) -> bool:
        return (len(self.layers), len(self.kinds)) == (self.all_layers, self.all_kinds)

    @property
    def top(self) -> int:
        """The height of the kinds' names, which are written upwards at 45 degrees."""
        return round(_MARGIN + _LETTER * max(map(len, self.kind_names), default=0))

    @property
    def width(self) -> int:
        return _LEFT + CELL * len(self.kinds) + max(0, self.top - 20)

    @property
    def height(self) -> int:
        return self.top + ROW * len(self.layers) + 2

    @property
    def columns(self) -> Iterator[tuple[int, int, str]]:
        """The position (x, y) where each kind's name begins, and the name."""
        return ((_LEFT + CELL * at + 12, self.top - 5, name) for at, name in enumerate(self.kind_names))

    @property
    def rows(self) -> Iterator[tuple[int, int, str]]:
        """The position (x, y) where each layer's name ends, and the name; the heading comes first."""
        yield _LEFT - _EDGE, self.top - 5, "layer"
        for at, name in enumerate(self.layer_names):
            yield _LEFT - _EDGE, self.top + ROW * at + 10, name


@dataclass(frozen=True, slots=True)
class HeatMap:
    """`paths` has a drawing for each level, light to dark, with all cells of it; `values` has the same as a
    table. None: no update there, or for a distance, none of the first version.
    """

    axes: Axes
    paths: tuple[str, ...]
    values: tuple[tuple[float | None, ...], ...]
    high: float


@dataclass(frozen=True, slots=True)
class SpectrumLine:
    """The median singular values of one version's modules of a kind, as shares of the largest: points of a
    line; and medians of the rank, the effective rank, and the largest singular value.
    """

    points: str
    rank: float
    effective_rank: float | None
    largest: float


@dataclass(frozen=True, slots=True)
class KindSpectrum:
    """A kind of module, with a line for each version, in their order; None if it has no such module."""

    kind: str
    lines: tuple[SpectrumLine | None, ...]
    count: int


def find_axes(measured: Iterable[WeightStatistics]) -> Axes:
    """The layers and kinds of all versions."""
    places = {place_of(module.module) for one in measured for module in one.modules}
    layers = in_model_order(layer for layer, _ in places)
    kinds = in_model_order(kind for _, kind in places)
    layers.sort(key=lambda layer: layer == NO_LAYER)
    shown, across = layers[:MAX_LAYERS], kinds[:MAX_KINDS]
    return Axes(
        tuple(shown),
        tuple(across),
        tuple(_short(layer, layers) for layer in shown),
        tuple(_short(kind, kinds) for kind in across),
        len(layers),
        len(kinds),
    )


def place_of(module: str) -> Place:
    """A module's layer and kind. Experts of one layer are one kind."""
    layer, kind = layer_and_kind(module)
    return layer, _NUMBER.sub(".*", kind)


def norms_by_place(found: WeightStatistics) -> dict[Place, float]:
    """‖Δ‖ of the modules at each place, as one vector."""
    return _joint((module.module, module.norm) for module in found.modules)


def distances_by_place(first: WeightStatistics, found: WeightDistance) -> dict[Place, float | None]:
    """The distance at each place, as a share of the first version's norm; None if the first has no update."""
    norms = norms_by_place(first)
    apart = _joint((module.module, module.distance) for module in found.modules)
    return {place: each / norms[place] if norms.get(place) else None for place, each in apart.items()}


def heat_map(axes: Axes, found: Mapping[Place, float | None], high: float) -> HeatMap:
    """Colours from 0 to `high`; larger values have the darkest."""
    rows = tuple(tuple(found.get((layer, kind)) for kind in axes.kinds) for layer in axes.layers)
    paths: list[list[str]] = [[] for _ in range(LEVELS)]
    for down, values in enumerate(rows):
        for across, value in enumerate(values):
            if value is not None:
                level = min(LEVELS - 1, int(LEVELS * value / high)) if high else 0
                x, y = _LEFT + CELL * across, axes.top + ROW * down
                paths[level].append(f"M{x} {y}h{CELL - 2}v{ROW - 2}h-{CELL - 2}z")
    return HeatMap(axes, tuple(map("".join, paths)), rows, high)


def spectra(axes: Axes, measured: Sequence[WeightStatistics | None]) -> tuple[KindSpectrum, ...]:
    """A drawing for each kind of module."""
    by_kind = [_by_kind(one) if one else {} for one in measured]
    return tuple(
        KindSpectrum(
            name,
            tuple(_line(found[kind]) if kind in found else None for found in by_kind),
            max(len(found.get(kind, ())) for found in by_kind),
        )
        for kind, name in zip(axes.kinds, axes.kind_names, strict=True)
    )


def _by_kind(found: WeightStatistics) -> dict[str, list[ModuleStatistics]]:
    kinds: dict[str, list[ModuleStatistics]] = {}
    for module in found.modules:
        kinds.setdefault(place_of(module.module)[1], []).append(module)
    return kinds


def _line(modules: Sequence[ModuleStatistics]) -> SpectrumLine:
    import statistics  # servers without such pages do not need it

    shares = [
        [value / module.singular_values[0] for value in module.singular_values]
        for module in modules
        if module.norm
    ]
    length = max(map(len, shares), default=0)
    medians = [statistics.median(each[at] for each in shares if at < len(each)) for at in range(length)]
    across, up = SPECTRUM_WIDTH - 2 * _EDGE, SPECTRUM_HEIGHT - 2 * _EDGE
    points = " ".join(
        f"{_EDGE + across * at / max(1, length - 1):.4g},{_EDGE + up * (1 - value):.4g}"
        for at, value in enumerate(medians)
    )
    effective = [module.effective_rank for module in modules if module.effective_rank is not None]
    return SpectrumLine(
        points,
        statistics.median(module.rank for module in modules),
        statistics.median(effective) if effective else None,
        statistics.median(module.singular_values[0] for module in modules),
    )


def _joint(values: Iterable[tuple[str, float]]) -> dict[Place, float]:
    squares: dict[Place, float] = {}
    for module, value in values:
        place = place_of(module)
        squares[place] = squares.get(place, 0.0) + value * value
    return {place: math.sqrt(each) for place, each in squares.items()}


def _short(name: str, among: Sequence[str]) -> str:
    """The last part of each name if it is unique; otherwise the whole name, without its middle if it is
    long.
    """
    if name == NO_LAYER:
        return "–"
    last = name.rpartition(".")[2]
    if sum(other.rpartition(".")[2] == last for other in among) == 1:
        return last
    return name if len(name) <= 24 else f"{name[:8]}…{name[-15:]}"
