"""kohya's sd-scripts and LyCORIS: one file under any name, its modules' paths with `_` for `.`, facts in `ss_*` metadata.

A path cannot be told back without the model's own list of names, so modules keep the names of the file. The scale is
alpha/rank; alpha is a tensor beside each module, and the metadata says the value they were trained with.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from adaptry.adapter.config import AdapterConfig
from adaptry.adapter.header import Header
from adaptry.adapter.layouts.layout import Gathered, Layout
from adaptry.adapter.spec import ModuleKind, ModuleSpec, Spec
from adaptry.errors import InvalidWeights

_KEY = re.compile(
    r"(?P<path>lora_(?:unet|te\d?|transformer|prior_unet)_[A-Za-z0-9_]+|lycoris_[A-Za-z0-9_]+)\.(?P<role>.+)"
)
_METHODS = (("hada_", "loha"), ("lokr_", "lokr"), ("oft_", "oft"))


def config(data: bytes, header: Header) -> AdapterConfig:
    """The metadata's facts, as text. Raises `InvalidWeights` where no tensor is one of kohya's."""
    if not any(_KEY.fullmatch(name) for name in header.tensors):
        example = next(iter(header.tensors), "none")
        raise InvalidWeights(
            f"a file of weights without adapter_config.json, and its tensors are not named as kohya's are "
            f"({example[:80]!a}): push the folder that the training wrote"
        )
    facts = {key: value[:512] for key, value in header.metadata.items() if key.startswith("ss_")}
    name = facts.get("ss_sd_model_name") or facts.get("ss_base_model_version")
    return AdapterConfig({**facts, "base_model_name_or_path": name})


def describe(config: AdapterConfig, header: Header) -> Spec:
    """The modules by their names in the file."""
    found = Gathered(header.tensors)
    for name in header.tensors:
        if match := _KEY.fullmatch(name):
            found.modules.setdefault(match["path"], {})[match["role"]] = name
        else:
            found.unclaimed.append(name)
    alpha = _number(config.fields.get("ss_network_alpha"))
    roles = {role for named in found.modules.values() for role in named}
    method = next((name for start, name in _METHODS if any(role.startswith(start) for role in roles)), "lora")
    traits = {"kohya"}
    if alpha is None:
        traits.add("alpha_unknown")
    if "dora_scale" in roles:
        traits.add("dora")
    return found.spec(config, method, _modules(found, method, alpha), traits)


def _modules(found: Gathered, method: str, alpha: float | None) -> Iterator[ModuleSpec]:
    for path, roles in found.modules.items():
        shapes = found.shapes(path)
        if method != "lora":
            yield found.module(path, (_rank(shapes), 0, 0))
            continue
        down, up = shapes.get("lora_down.weight", ()), shapes.get("lora_up.weight", ())
        if len(down) < 2 or len(up) < 2 or down[0] != up[1]:
            found.unclaimed.extend(roles.values())
            continue
        scale = 1.0 if alpha is None else alpha / down[0]
        kind: ModuleKind = "conv" if len(down) > 2 else "linear"
        yield found.module(path, (down[0], down[1], up[0]), scale, kind)


def _rank(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """The rank of a LyCORIS module's first pair of factors; 0 where it has none."""
    ends = ("w1_b", "w2_b", "w1_a", "w2_a")
    return next((shapes[role][0] for end in ends for role in sorted(shapes) if role.endswith(end)), 0)


def _number(text: object) -> float | None:
    """Metadata are texts, and `None` is one of them."""
    return float(text) if isinstance(text, str) and re.fullmatch(r"\d{1,6}(\.\d{1,6})?", text) else None


LAYOUT = Layout(config, describe)
