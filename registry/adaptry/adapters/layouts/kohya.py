"""kohya's sd-scripts and LyCORIS: one file of any name, module paths with `_` for `.`, and `ss_*` metadata.

The original path cannot be recovered without the model's list of names, so modules keep the names of the
file. The scale is alpha/rank, where alpha is a tensor of each module, or the rank if the tensor is missing.
No loader reads the alpha in the metadata (sd-scripts' `networks/lora.py`, diffusers'
`_convert_non_diffusers_lora_to_diffusers`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.header import ReadAt, SafetensorsHeader
from adaptry.adapters.layouts.layout import AdapterLayout, ForeignTensors
from adaptry.adapters.layouts.scalars import read_scalar
from adaptry.adapters.methods import METHODS
from adaptry.adapters.spec import ModuleKind, ModuleSpec, Spec

_KEY = re.compile(
    r"(?P<path>lora_(?:unet|te\d?|transformer|prior_unet)_[A-Za-z0-9_]+|lycoris_[A-Za-z0-9_]+)\.(?P<role>.+)"
)
_METHODS = (("hada_", "loha"), ("lokr_", "lokr"), ("oft_", "oft"))


def is_key(name: str) -> bool:
    """Whether a tensor has a name of sd-scripts' or LyCORIS' form."""
    return _KEY.fullmatch(name) is not None


def config(data: bytes, header: SafetensorsHeader, read: ReadAt) -> AdapterConfig:
    """The metadata's fields, as text, and `alphas` by module. Raises `InvalidWeights` if an alpha is not a
    number.
    """
    facts = {key: value[:512] for key, value in header.metadata.items() if key.startswith("ss_")}
    name = facts.get("ss_sd_model_name") or facts.get("ss_base_model_version")
    alphas = {
        match["path"]: read_scalar(name, info, read)
        for name, info in header.tensors.items()
        if (match := _KEY.fullmatch(name)) and match["role"] == "alpha"
    }
    return AdapterConfig({**facts, "alphas": alphas, "base_model_name_or_path": name})


def describe(config: AdapterConfig, header: SafetensorsHeader) -> Spec:
    """The modules by their names in the file."""
    found = ForeignTensors(header.tensors)
    for name in header.tensors:
        if match := _KEY.fullmatch(name):
            found.modules.setdefault(match["path"], {})[match["role"]] = name
        else:
            found.unclaimed.append(name)
    roles = {role for named in found.modules.values() for role in named}
    method = next((name for start, name in _METHODS if any(role.startswith(start) for role in roles)), "lora")
    alphas: Mapping[str, float] = config.fields["alphas"]
    modules = list(_modules(found, method, alphas))
    traits = {"kohya"}
    if any(_is_without(module, alphas, config) for module in modules):
        traits.add("alpha_unknown")
    if "dora_scale" in roles:
        traits.add("dora")
    return found.spec(config, method, modules, traits)


def _modules(tensors: ForeignTensors, method: str, alphas: Mapping[str, float]) -> Iterator[ModuleSpec]:
    for path, roles in tensors.modules.items():
        shapes = tensors.shapes(path)
        if method != "lora":
            yield _lycoris(tensors, path, method, alphas.get(path))
            continue
        down, up = shapes.get("lora_down.weight", ()), shapes.get("lora_up.weight", ())
        if len(down) < 2 or len(up) < 2 or down[0] != up[1]:
            tensors.unclaimed.extend(roles.values())
            continue
        kind: ModuleKind = "conv" if len(down) > 2 else "linear"
        yield tensors.module(
            path, (down[0], down[1], up[0]), alphas.get(path, down[0]) / max(1, down[0]), kind
        )


def _lycoris(tensors: ForeignTensors, path: str, method: str, alpha: float | None) -> ModuleSpec:
    """A module of LyCORIS, which scales by alpha over rank, and by 1 if no factor has a rank. Sides are 0 if
    the tensors do not determine them.
    """
    shapes = tensors.shapes(path)
    rank = _rank(shapes)
    scale = alpha / rank if alpha is not None and rank else 1.0
    own = {role.partition("_")[2]: shape for role, shape in shapes.items() if role != "alpha"}
    try:
        if method not in ("loha", "lokr"):
            raise ValueError
        size = METHODS[method].module_size(own, AdapterConfig({"r": max(1, rank)}))
    except (KeyError, IndexError, ValueError):
        return tensors.module(path, (rank, 0, 0), scale)
    return tensors.module(path, (rank, size.fan_in, size.fan_out), scale, size.kind)


def _rank(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """The rank of a LyCORIS module's first pair of factors; 0 if it has none."""
    ends = ("w1_b", "w2_b", "w1_a", "w2_a")
    return next((shapes[role][0] for end in ends for role in sorted(shapes) if role.endswith(end)), 0)


def _is_without(module: ModuleSpec, alphas: Mapping[str, float], config: AdapterConfig) -> bool:
    """Whether a module has no alpha, and the metadata does not state that it was trained with alpha =
    rank.
    """
    return module.path not in alphas and _number(config.fields.get("ss_network_alpha")) != module.rank


def _number(text: object) -> float | None:
    """The number in a metadata text, which may be `None`."""
    return float(text) if isinstance(text, str) and re.fullmatch(r"\d{1,6}(\.\d{1,6})?", text) else None


LAYOUT = AdapterLayout(config, describe)
