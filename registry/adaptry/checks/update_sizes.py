"""The sizes of a LoRA's updates, estimated from the norms of its factors: some are too large for a model to
compute with, and some too small to change it.

The bounds leave a wide margin on both sides of trained adapters, whose updates are smaller than the weights
that they change: typical elements of both are between 1e-6 and 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from adaptry.adapters.inspection.result import TensorStatistics
from adaptry.adapters.spec import ModuleSpec, Spec
from adaptry.checks.codes import build_finding
from adaptry.checks.finding_text import fold_layer_numbers, shorten_names
from adaptry.core.report import Finding

_FACTORS = ({"A", "B"}, {"embedding_A", "embedding_B"})
_LARGE = 100.0
"""A thousand times the elements of most weights. (PEFT draws one factor of an embedding from N(0, 1).)"""
_OVERFLOWING = 65504.0
"""The largest float16. With updates of such elements, a model's answers are NaN or infinite in any dtype that
is used for models, or have nothing to do with the base.
"""
_NEGLIGIBLE = 2.0**-40
"""No element of the update exceeds the product of the norms. One step of training at a learning rate of 1e-6
makes it larger than 2⁻²⁰.
"""


def size_findings(spec: Spec, tensors: Mapping[str, TensorStatistics]) -> Iterator[Finding]:
    """Findings about updates that are too large."""
    sizes = {module.path: size for module in spec.modules if (size := _typical_element(module, tensors))}
    overflowing = [path for path, size in sizes.items() if size > _OVERFLOWING]
    large = [path for path, size in sizes.items() if _LARGE < size <= _OVERFLOWING]
    for code, paths in (("updates_overflow", overflowing), ("updates_large", large)):
        if paths:
            most = max(sizes[path] for path in paths)
            listed = shorten_names(fold_layer_numbers(paths))
            yield build_finding(code, f"{listed}: elements of about {most:.1g}", paths)


def is_negligible(module: ModuleSpec, tensors: Mapping[str, TensorStatistics]) -> bool:
    """Whether a LoRA's update is too small to change a weight or an answer in any dtype."""
    bound = _bound(module, tensors)
    return bound is not None and bound < _NEGLIGIBLE


def _typical_element(module: ModuleSpec, tensors: Mapping[str, TensorStatistics]) -> float | None:
    """The root mean square of the update, if its factors are independent of each other."""
    bound, elements = _bound(module, tensors), module.rank * module.fan_in * module.fan_out
    return None if bound is None or elements <= 0 else bound / math.sqrt(elements)


def _bound(module: ModuleSpec, tensors: Mapping[str, TensorStatistics]) -> float | None:
    """The product of the norms and the scale; None unless the update is that of two factors alone."""
    if module.tensors.keys() not in _FACTORS:
        return None
    factors = [tensors.get(name) for name in module.tensors.values()]
    norms = [factor.norm for factor in factors if factor is not None and not factor.nan + factor.infinite]
    if len(norms) != 2 or norms[0] is None or norms[1] is None:
        return None
    return abs(module.scale) * norms[0] * norms[1]
