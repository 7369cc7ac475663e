"""The sizes of updates, estimated from the norms of their factors: some are too large for a model to
compute with, and some too small to change it.

The bounds leave a wide margin on both sides of trained adapters, whose updates are smaller than the weights
that they change: typical elements of both are between 1e-6 and 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from adaptry.adapters.inspection.result import TensorStatistics
from adaptry.adapters.spec import ModuleSpec, Spec
from adaptry.checks.codes import build_finding
from adaptry.checks.finding_text import fold_layer_numbers, shorten_names
from adaptry.core.report import Finding

if TYPE_CHECKING:
    from adaptry.adapters.methods.method import Method

_FACTORS = ({"A", "B"}, {"embedding_A", "embedding_B"})
_MAX_RATIO = 100.0
"""A thousand times the elements of most weights. (PEFT draws one factor of an embedding from N(0, 1).)"""
_OVERFLOWING = 65504.0
"""The largest float16. With updates of such elements, a model's answers are NaN or infinite in any dtype that
is used for models, or have nothing to do with the base.
"""
_NEGLIGIBLE = 2.0**-40
"""No element of a LoRA's update exceeds the product of the norms. One step of training at a learning rate of
1e-6 makes it larger than 2⁻²⁰.
"""
_UNDERFLOWING = 2.0**-100
"""The same for methods that also multiply their factors by other numbers, such as VeRA's projections, or
divide them by their norms, as DeLoRA does (by at least 1e-4).
"""


def size_findings(spec: Spec, tensors: Mapping[str, TensorStatistics]) -> Iterator[Finding]:
    """Findings about updates that are too large."""
    sizes = {module.path: size for module in spec.modules if (size := _typical_element(module, tensors))}
    overflowing = [path for path, size in sizes.items() if size > _OVERFLOWING]
    large = [path for path, size in sizes.items() if _MAX_RATIO < size <= _OVERFLOWING]
    for code, paths in (("updates_overflow", overflowing), ("updates_large", large)):
        if paths:
            maximum = max(sizes[path] for path in paths)
            listed = shorten_names(fold_layer_numbers(paths))
            yield build_finding(code, f"{listed}: elements of about {maximum:.1g}", paths)


def may_be_negligible(
    names: Iterable[str], tensors: Mapping[str, TensorStatistics], scale: float = 1.0
) -> bool:
    """Whether the update may be negligible, judged by its tensors' norms alone. For most updates the answer
    is no, and it takes less time than `is_negligible`.
    """
    bound = abs(scale)
    for name in names:
        found = tensors.get(name)
        if found is not None and found.norm is not None and found.norm < 1:
            bound *= found.norm
    return bound < _NEGLIGIBLE


def is_negligible(
    method: Method, roles: Mapping[str, str], tensors: Mapping[str, TensorStatistics], scale: float = 1.0
) -> bool:
    """Whether an update is too small to change a weight or an answer in any dtype. `roles`: the names of its
    tensors by role.
    """
    products = method.products_of(roles)
    limit = _NEGLIGIBLE if roles.keys() in _FACTORS else _UNDERFLOWING
    return bool(products) and all(
        (bound := _bound(product, roles, tensors, scale)) is not None and bound < limit
        for product in products
    )


def _typical_element(module: ModuleSpec, tensors: Mapping[str, TensorStatistics]) -> float | None:
    """The root mean square of the update, if it is that of two factors alone, independent of each other."""
    if module.tensors.keys() not in _FACTORS:
        return None
    bound = _bound([(role,) for role in module.tensors], module.tensors, tensors, module.scale)
    elements = module.rank * module.fan_in * module.fan_out
    return None if bound is None or elements <= 0 else bound / math.sqrt(elements)


def _bound(
    product: Sequence[Sequence[str]],
    roles: Mapping[str, str],
    tensors: Mapping[str, TensorStatistics],
    scale: float,
) -> float | None:
    """The scale times the norms of a product's factors, each given by its roles; None if one is not known."""
    bound = abs(scale)
    for factor in product:
        statistics = [tensors.get(roles[role]) for role in factor]
        norms = [each.norm for each in statistics if each is not None and not each.nan + each.infinite]
        known = [norm for norm in norms if norm is not None]
        if len(known) != len(factor):
            return None
        bound *= math.hypot(*known)
    return bound
