"""Keys whose prefix an engine would not find: doubled, missing, or left by a training wrapper, put right.

Only names change. A key is put right where what comes out is a factor of a module; where the base is known,
its own names say what a module is called on disk.
"""

from __future__ import annotations

import re

from adaptry.adapters.base_record import BaseRecord
from adaptry.adapters.methods.extras import PREFIX
from adaptry.adapters.spec import ModuleSpec
from adaptry.bases.module_map import place
from adaptry.checks.binding import bind
from adaptry.checks.runtimes import Runtime
from adaptry.compute.exporting.options import ExportOptions
from adaptry.compute.exporting.rename_modules import rename_modules
from adaptry.compute.exporting.rewrite import rewrite_adapter
from adaptry.compute.layout_conversion.convert import convert_layout
from adaptry.compute.layout_conversion.module_names import LayoutVersion
from adaptry.compute.lazy_adapters.lazy_adapter import LazyAdapter, ParentAdapter
from adaptry.core.errors import CheckFailed

_WRAPPERS = re.compile(r"(?:base_model\.model\.|module\.|_orig_mod\.|_fsdp_wrapped_module\.)+")
_INSIDE = re.compile(r"(?<=\.)(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_FACTOR = re.compile(
    r"(?P<path>.+)\.(?P<role>lora_[AB]|lora_embedding_[AB])(?:\.[A-Za-z0-9_-]+)??(?P<end>\.weight|)"
)
_ON_DISK: LayoutVersion = "transformers4"


def normalise_keys(parent: ParentAdapter, runtime: Runtime, options: ExportOptions) -> LazyAdapter:
    """Every factor as `base_model.model.<module>.lora_A.weight`. Raises `CheckFailed` where a tensor is no
    factor after all, or two become one.
    """
    new = {name: normalise_key(name) for name in parent.adapter.tensors}
    unclaimed = set(parent.adapter.spec.unclaimed)
    strange = [name for name in new if name in unclaimed and new[name] == name]
    if strange or len(set(new.values())) < len(new):
        first = strange[0] if strange else next(iter(new))
        raise CheckFailed(
            f"{parent.label} has {len(strange) or len(new)} tensors that no rule knows or that would become"
            f" one (first: {first}), and nothing is left out silently:"
            " save the adapter again from the trained model"
        )
    return rewrite_adapter(parent, {"operation": "rename"}, name=new.__getitem__)


def normalise_key(name: str) -> str:
    """`name` with exactly one prefix and no adapter's name inside; as it is where it is no factor."""
    match = _FACTOR.fullmatch(_INSIDE.sub("", _WRAPPERS.sub("", name, count=1)))
    if match is None:
        return name
    end = "" if "embedding" in match["role"] else ".weight"
    return f"{PREFIX}{match['path']}.{match['role']}{end}"


def rename_to_loaded(parent: ParentAdapter, runtime: Runtime, options: ExportOptions) -> LazyAdapter:
    """Modules called as they are in the model onto which PEFT loads the adapter. Raises `CheckFailed` where
    two become one."""
    base = options.require_record(f"renaming the modules of {parent.label}")
    return rename_modules(parent, _loaded_paths(parent, base))


def _loaded_paths(parent: ParentAdapter, base: BaseRecord) -> dict[str, str]:
    """The names that modules were meant to have, by those that PEFT would drop."""
    return {
        dropped.path: dropped.intended
        for dropped in bind(parent.adapter, base).dropped
        if dropped.cause == "name" and dropped.intended is not None
    }


def rename_to_disk(parent: ParentAdapter, runtime: Runtime, options: ExportOptions) -> LazyAdapter:
    """Modules called as the base calls them: as PEFT would have them where that is enough for the engine,
    else as on disk, by its own names where a prefix is more or less, or by the layout of transformers 4.
    Raises `CheckFailed` where a module is nowhere in the base, or could be two.
    """
    base = options.require_record(f"renaming the modules of {parent.label}")
    spec = parent.adapter.spec
    known = {name.rpartition(".")[0] for name in base.tensors if name.endswith(".weight")}
    meant = _loaded_paths(parent, base)
    if meant and all(meant.get(module.path, module.path) in known for module in spec.modules):
        return rename_modules(parent, meant)
    module_map = place(spec, base.tensors, base.facts)
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
        why = "nothing of that name" if not best else f"{len(best)} weights of that name"
        raise CheckFailed(
            f"{label}: the base has {why} for {module.path}; is this the base it was trained on?"
        )
    return best[0]


def join_experts(parent: ParentAdapter, runtime: Runtime, options: ExportOptions) -> LazyAdapter:
    return convert_layout(
        parent, options.require_record(f"putting the experts of {parent.label} together"), "transformers5"
    )


def split_experts(parent: ParentAdapter, runtime: Runtime, options: ExportOptions) -> LazyAdapter:
    return convert_layout(
        parent, options.require_record(f"taking the experts of {parent.label} apart"), _ON_DISK
    )
