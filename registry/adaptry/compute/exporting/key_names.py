"""Corrects keys whose prefix an engine would not find: doubled, missing, or added by a training wrapper.

Only names change. A key is corrected if the result is a factor of a module. If the base is known, its names
determine the names on disk.
"""

from __future__ import annotations

import re

from adaptry.adapters.methods.extras import PREFIX
from adaptry.adapters.spec import ModuleSpec
from adaptry.checks.binding import BoundAdapter, bind
from adaptry.checks.runtimes import Runtime
from adaptry.compute.exporting.options import ExportOptions
from adaptry.compute.exporting.rename_modules import rename_modules
from adaptry.compute.exporting.rewrite import rewrite_adapter
from adaptry.compute.layout_conversion.convert import convert_layout
from adaptry.compute.layout_conversion.module_names import LayoutVersion
from adaptry.compute.lazy_adapters.lazy_adapter import LazyAdapter, ParentAdapter
from adaptry.core.display import format_count
from adaptry.core.errors import CheckFailed

_WRAPPERS = re.compile(r"(?:base_model\.model\.|module\.|_orig_mod\.|_fsdp_wrapped_module\.)+")
_INSIDE = re.compile(r"(?<=\.)(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_FACTOR = re.compile(
    r"(?P<path>.+)\.(?P<role>lora_[AB]|lora_embedding_[AB])(?:\.[A-Za-z0-9_-]+)??(?P<end>\.weight|)"
)
_ON_DISK: LayoutVersion = "transformers4"


def normalise_keys(parent: ParentAdapter, runtime: Runtime, options: ExportOptions) -> LazyAdapter:
    """Names every factor `base_model.model.<module>.lora_A.weight`. Raises `CheckFailed` if a tensor is not a
    factor, or two tensors get the same name.
    """
    new = {name: normalise_key(name) for name in parent.adapter.tensors}
    unclaimed = set(parent.adapter.spec.unclaimed)
    strange = [name for name in new if name in unclaimed and new[name] == name]
    if strange or len(set(new.values())) < len(new):
        first = strange[0] if strange else next(iter(new))
        raise CheckFailed(
            f"{parent.label} has {format_count(len(strange) or len(new), 'tensor')} with an unknown name, or"
            " a name that another tensor would get"
            f" (first: {first}), so some would be lost:"
            " save the adapter again from the trained model"
        )
    return rewrite_adapter(parent, {"operation": "rename"}, name=new.__getitem__)


def normalise_key(name: str) -> str:
    """`name` with exactly one prefix and without an adapter's name; unchanged if it is not a factor."""
    match = _FACTOR.fullmatch(_INSIDE.sub("", _WRAPPERS.sub("", name, count=1)))
    if match is None:
        return name
    end = "" if "embedding" in match["role"] else ".weight"
    return f"{PREFIX}{match['path']}.{match['role']}{end}"


def rename_to_loaded(parent: ParentAdapter, runtime: Runtime, options: ExportOptions) -> LazyAdapter:
    """Renames modules to their names in the model onto which PEFT loads the adapter. Raises `CheckFailed` if
    two get the same name.
    """
    base = options.require_record(f"renaming the modules of {parent.label}")
    return rename_modules(parent, _loaded_paths(bind(parent.adapter, base)))


def _loaded_paths(bound: BoundAdapter) -> dict[str, str]:
    """Maps the names that PEFT would drop to the intended names of the modules."""
    return {
        dropped.path: dropped.intended
        for dropped in bound.dropped
        if dropped.cause == "name" and dropped.intended is not None
    }


def rename_to_disk(parent: ParentAdapter, runtime: Runtime, options: ExportOptions) -> LazyAdapter:
    """Renames modules to the base's names: PEFT's names if the engine accepts them, else those on disk, found
    with another prefix or by the layout of transformers 4. Raises `CheckFailed` if the base does not have a
    module, or has two candidates.
    """
    base = options.require_record(f"renaming the modules of {parent.label}")
    spec = parent.adapter.spec
    known = {name.rpartition(".")[0] for name in base.tensors if name.endswith(".weight")}
    bound = bind(parent.adapter, base)
    meant = _loaded_paths(bound)
    if meant and all(meant.get(module.path, module.path) in known for module in spec.modules):
        return rename_modules(parent, meant)
    module_map = bound.intended
    if module_map.missing:
        paths = {module.path: _found(parent.label, module, known) for module in spec.modules}
    elif any(target.expert or len(target.weight.parts) > 1 for target in module_map.placed):
        return convert_layout(parent, base, _ON_DISK)
    else:
        paths = {target.module.path: target.tensor.removesuffix(".weight") for target in module_map.placed}
    return rename_modules(parent, paths)


def _found(label: str, module: ModuleSpec, known: set[str]) -> str:
    if module.path in known:
        return module.path
    ends = [name for name in known if name.endswith(f".{module.path}") or module.path.endswith(f".{name}")]
    longest = max(map(len, ends), default=0)
    best = [name for name in ends if len(name) == longest]
    if len(best) != 1:
        why = "no weight of that name" if not best else f"{len(best)} weights of that name"
        raise CheckFailed(
            f"{label}: the base has {why} for {module.path}; is this the base it was trained on?"
        )
    return best[0]


def join_experts(parent: ParentAdapter, runtime: Runtime, options: ExportOptions) -> LazyAdapter:
    return convert_layout(
        parent, options.require_record(f"fusing the experts of {parent.label}"), "transformers5"
    )


def split_experts(parent: ParentAdapter, runtime: Runtime, options: ExportOptions) -> LazyAdapter:
    return convert_layout(
        parent, options.require_record(f"separating the experts of {parent.label}"), _ON_DISK
    )
