"""Findings from an inspection of the weights: non-finite values, and modules that change nothing.

These are pure functions of values; `adaptry.adapters.inspection` inspects the weights, in a limited process.
So a server and the command line report the same findings for the same files.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.inspection.files import inspect_content
from adaptry.adapters.inspection.inspector import Inspector
from adaptry.adapters.inspection.result import TensorStatistics, WeightsInspection
from adaptry.adapters.methods import METHODS
from adaptry.adapters.spec import ModuleSpec, Spec
from adaptry.checks.codes import build_finding
from adaptry.checks.finding_text import fold_layer_numbers, format_count, shorten_names
from adaptry.checks.update_sizes import is_negligible, may_be_negligible, size_findings
from adaptry.core.report import Finding

if TYPE_CHECKING:
    from adaptry.adapters.base_record import BaseRecord

WEIGHTS_CODES = frozenset(
    {
        "weights_nan",
        "weights_infinite",
        "untrained",
        "modules_untrained",
        "updates_zero",
        "saved_copy_differs",
        "updates_large",
        "updates_overflow",
    }
)
"""Findings that need the weights."""

UNTRAINED = frozenset(["untrained", "modules_untrained", "updates_zero"])
"""Findings that updates are zero."""

# AdapterHub's roles, MLX's, and kohya's.
_ROLES = {
    "lora_A": "A", "lora_B": "B", "lora_a": "A", "lora_b": "B",
    "lora_down.weight": "A", "lora_up.weight": "B", "oft_blocks": "R",
}  # fmt: skip
_LYCORIS = ("hada_", "lokr_")
_OF_BOTTLENECKS = ("adapter_down.", "adapter_up.", "gate.", "phm_rule", "scaling")
"""The beginnings of the roles of AdapterHub's bottlenecks, outside of its layers that normalise."""

FindUnchanged = Callable[[], Collection[str]]
"""Finds parts of the adapter that change nothing, by reading their values (`find_unchanged_parts`)."""


def check_weights(
    adapter: Adapter,
    inspector: Inspector | None = None,
    tenant: str = "",
    base: BaseRecord | None = None,
    find_unchanged: FindUnchanged | None = None,
) -> list[Finding]:
    """Reads every tensor once, and finds NaN, infinities, and modules that change nothing. With an
    `inspector`, its processes are used, in the turn of `tenant`. Weights that the adapter replaces are
    compared with those of its `base`, by `find_unchanged` if that is given, and so are copies of embeddings.

    Raises `Unavailable` if they cannot be inspected, and `InvalidWeights`.
    """
    if inspector is not None:
        found = inspect_content(inspector, adapter.content, tenant)
        own = find_unchanged or partial(find_unchanged_parts, adapter, base)
        return [*weights_findings(adapter.spec, found, own), *check_copies(adapter, base)]
    with closing(Inspector()) as inspecting:
        return check_weights(adapter, inspecting, base=base, find_unchanged=find_unchanged)


def weights_findings(
    spec: Spec, inspections: Mapping[str, WeightsInspection], find_unchanged: FindUnchanged = frozenset
) -> list[Finding]:
    """Findings about an adapter, from the inspection of its weights files by path. `find_unchanged` is called
    if the inspection does not show whether the adapter changes anything.
    """
    return [
        *not_finite_findings(inspections),
        *_too_large(spec, inspections),
        *_untrained(spec, inspections, find_unchanged),
    ]


def not_finite_findings(inspections: Mapping[str, WeightsInspection]) -> Iterator[Finding]:
    """Findings about NaN and infinity in any weights files."""
    tensors = [item for inspection in inspections.values() for item in inspection.tensors.items()]
    if nan := [name for name, tensor in tensors if tensor.nan]:
        yield build_finding(
            "weights_nan",
            f"NaN in {format_count(len(nan), 'tensor')}: {shorten_names(fold_layer_numbers(nan))}",
            nan,
        )
    if infinite := [name for name, tensor in tensors if tensor.infinite]:
        reason = (
            f"infinite values in {format_count(len(infinite), 'tensor')}:"
            f" {shorten_names(fold_layer_numbers(infinite))}"
        )
        yield build_finding("weights_infinite", reason, infinite)


def _too_large(spec: Spec, inspections: Mapping[str, WeightsInspection]) -> Iterator[Finding]:
    if spec.method == "lora" and not METHODS["lora"].is_relative(spec.traits):
        yield from size_findings(spec, _tensors(inspections))


def _tensors(inspections: Mapping[str, WeightsInspection]) -> dict[str, TensorStatistics]:
    return {name: each for inspection in inspections.values() for name, each in inspection.tensors.items()}


def _untrained(
    spec: Spec, inspections: Mapping[str, WeightsInspection], find_unchanged: FindUnchanged
) -> Iterator[Finding]:
    """Findings about untrained modules: most methods begin with a factor of zeros, or with multipliers of
    one, so that nothing changes.
    """
    if not spec.modules and not spec.extras and _is_idle_vector(spec, _tensors(inspections)):
        yield build_finding("untrained", "all modules share one vector, and it is zero", [])
        return
    idle, scaled = idle_modules(spec, inspections)
    replaced = [extra.target for extra in spec.extras]
    others = [module.path for module in spec.modules if module.path not in {*idle}]
    is_all_known = "invertible" not in spec.traits  # AdapterHub's further layer around the embeddings
    if is_all_known and (spec.modules or replaced) and {*others} <= _possibly_idle(spec, scaled):
        unchanged = find_unchanged() if others or replaced else ()
        if {*others, *replaced} <= {*unchanged}:
            yield _of_untrained([*idle, *others], replaced)
            return
        idle += [path for path in others if path in unchanged]
    if idle:
        listed = shorten_names(fold_layer_numbers(idle))
        yield build_finding("modules_untrained", f"these modules change nothing: {listed}", idle)
    if scaled := [path for path in scaled if path not in {*idle}]:
        listed = shorten_names(fold_layer_numbers(scaled))
        yield build_finding("updates_zero", f"the updates of these modules are zero: {listed}", scaled)


def _is_idle_vector(spec: Spec, tensors: Mapping[str, TensorStatistics]) -> bool:
    """Whether the file has only shared tensors (a Uni-LoRA), and these change nothing."""
    method = METHODS.get(spec.method)
    return method is not None and is_negligible(method, spec.shared, tensors)


def _of_untrained(idle: list[str], replaced: list[str]) -> Finding:
    reasons = ["no module changes anything"] if idle else []
    if replaced:
        listed = shorten_names(fold_layer_numbers(replaced))
        reasons.append(f"{listed} {'has' if len(replaced) == 1 else 'have'} the base's own values")
    return build_finding("untrained", ", and ".join(reasons), [*idle, *replaced])


def _possibly_idle(spec: Spec, scaled: Collection[str]) -> set[str]:
    """The modules that may change nothing although their tensors do not show it."""
    method = METHODS.get(spec.method)
    if method is not None and (method.is_relative(spec.traits) or method.may_cancel(spec.traits)):
        return {module.path for module in spec.modules}
    return {*scaled}


def idle_modules(spec: Spec, inspections: Mapping[str, WeightsInspection]) -> tuple[list[str], list[str]]:
    """Two lists of paths: of the modules that leave the model as it is, since their update is zero or their
    multipliers are one; and of the modules with such an update that can change the model only by numbers that
    begin as the base's own, such as a DoRA's magnitudes.
    """
    method, tensors = METHODS.get(spec.method), _tensors(inspections)
    if spec.method == "bottleneck":
        return [module.path for module in spec.modules if _is_idle_bottleneck(module, tensors)], []
    if method is None or method.is_relative(spec.traits):
        return [], []
    zeros = {name for name, tensor in tensors.items() if tensor.is_zero}
    ones = {name for name, tensor in tensors.items() if tensor.is_one}
    idle, scaled = [], []
    for module in spec.modules:
        names = {**spec.shared, **module.tensors}
        if not ones and not may_be_negligible(names.values(), tensors, module.scale):
            continue
        roles = tensors_by_role(names)
        none = {*roles.values()} if is_negligible(method, roles, tensors, module.scale) else zeros
        if method.changes_nothing(roles, none, ones):
            idle.append(module.path)
        elif method.changes_by_base_numbers(roles, none, ones):
            scaled.append(module.path)
    return idle, scaled


def _is_idle_bottleneck(module: ModuleSpec, tensors: Mapping[str, TensorStatistics]) -> bool:
    """Whether AdapterHub's bottleneck adds nothing: its second layer gives zeros, or its scale is zero."""
    if not all(role.startswith(_OF_BOTTLENECKS) for role in module.tensors):
        return False
    second = [name for role, name in module.tensors.items() if role.startswith("adapter_up.")]
    is_zero = all(name in tensors and tensors[name].is_zero for name in second)
    return is_zero or (module.scale == 0 and "scaling" not in module.tensors)


def tensors_by_role(tensors: Mapping[str, str]) -> Mapping[str, str]:
    """The names of tensors by PEFT's roles, including those in other tools' layouts."""
    return {_ROLES.get(role, _without_lycoris(role)): name for role, name in tensors.items()}


def _without_lycoris(role: str) -> str:
    return next((role.removeprefix(start) for start in _LYCORIS if role.startswith(start)), role)


def check_copies(adapter: Adapter, base: BaseRecord | None) -> Iterator[Finding]:
    """Like `base.saved_copies.check_copies`."""
    if base is not None and adapter.spec.extras:
        from adaptry.checks.base import saved_copies  # only for adapters that replace weights

        yield from saved_copies.check_copies(adapter, base)


def find_unchanged_parts(adapter: Adapter, base: BaseRecord | None) -> Collection[str]:
    """The targets of the weights that the adapter replaces by the base's own (`base.copied_weights`), and the
    paths of modules whose vectors or factors cancel (`cancelling_vectors`, `cancelling_factors`).
    """
    # Only for an adapter that may change nothing.
    from adaptry.checks import cancelling_factors, cancelling_vectors
    from adaptry.checks.base import copied_weights

    replaced = copied_weights.weights_of_base(adapter, base) if adapter.spec.extras else frozenset()
    cancelling = cancelling_vectors.modules_that_cancel(adapter) | cancelling_factors.modules_that_cancel(
        adapter
    )
    return {*replaced, *cancelling}
