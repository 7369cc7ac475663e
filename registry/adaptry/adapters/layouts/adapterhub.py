"""AdapterHub's `adapters`: bottlenecks (arXiv 1902.00751, 2005.00052, 2106.04647) and its other methods.

Keys are complete paths in the model that contain the adapter's name:
`….output.adapters.NAME.adapter_up.weight`. A head saved next to them is loaded by that library only, and is
not part of the spec.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from adaptry.adapters.config import AdapterConfig, parse_config
from adaptry.adapters.header import ReadAt, SafetensorsHeader
from adaptry.adapters.layouts.layout import AdapterLayout, ForeignTensors
from adaptry.adapters.spec import ModuleSpec, Spec
from adaptry.core.errors import InvalidConfig

_VERSION = "adapters."
_MODULE = r"(?P<path>.+)\.(?:adapters|loras|reft_layer\.refts)\.{name}\.(?P<role>.+)"
_SHARED = r"(?:.+\.)?(?P<kind>invertible_adapters|shared_parameters|prompt_tunings)\.{name}\.(?P<role>.+)"
# One prefix serves the whole model; each layer's attention has its own name for it.
_PREFIX = r"(?P<kind>.+\.prefix_tuning(?:\.pool)?\.(?:prefix_tunings|prefix_gates))\.{name}\.(?P<role>.+)"
_DESCRIBED = frozenset({"bottleneck", "lora", "ia3", "prompt_tuning", "prefix_tuning", "reft", "union"})

MethodSettings = Mapping[str, Any]
"""A method's settings. (`Any`: JSON that differs between architectures.)"""


def config(data: bytes, header: SafetensorsHeader, read: ReadAt) -> AdapterConfig:
    """The config as written, with the base's name in PEFT's field. Raises `InvalidConfig`."""
    fields = dict(parse_config(data).fields)
    version = fields.get("version")
    if not isinstance(fields.get("config"), dict) or not str(version).startswith(_VERSION):
        raise InvalidConfig(
            "adapter_config.json was not written by AdapterHub's adapters library (version"
            f" {str(version)[:40]!a}), the only tool that writes an adapter.safetensors"
        )
    if not isinstance(fields.get("name"), str) or not fields["name"]:
        raise InvalidConfig("adapter_config.json has no field name, which every tensor's name contains")
    return AdapterConfig({**fields, "base_model_name_or_path": fields.get("model_name")})


def describe(config: AdapterConfig, header: SafetensorsHeader) -> Spec:
    """The modules that the adapter changes, under the library's names. A union (MAM, UniPELT) has several
    methods.
    """
    settings: MethodSettings = config.fields["config"]
    members = {_method(member): member for member in _members(settings)}
    found = _gathered(config.fields["name"], header)
    modules = list(_modules(found, members))
    traits = {
        "adapterhub",
        *(trait for method, member in members.items() for trait in _traits(member, method)),
    }
    if len(members) > 1:
        traits |= members.keys() & _DESCRIBED
    tokens = _tokens(found, members)
    return found.spec(config, _method(settings), modules, traits, tokens)


def _members(settings: MethodSettings) -> list[MethodSettings]:
    written = settings.get("configs") if settings.get("architecture") == "union" else None
    if not isinstance(written, list):
        return [settings]
    return [member for member in written if isinstance(member, dict)] or [settings]


def _method(settings: MethodSettings) -> str:
    architecture = settings.get("architecture")
    if architecture is None:
        return "bottleneck"
    if architecture == "lora" and settings.get("composition_mode") == "scale":
        return "ia3"
    return str(architecture)[:40]


def _traits(settings: MethodSettings, method: str) -> Iterator[str]:
    flags = {
        "is_parallel": "parallel",
        "phm_layer": "compacter",
        "inv_adapter": "invertible",
        "use_gating": "gated",
        "use_dora": "dora",
    }
    yield from (trait for flag, trait in flags.items() if settings.get(flag))
    if settings.get("scaling") in ("learned", "channel"):
        yield "learned_scaling"
    if method not in _DESCRIBED:
        yield "not_described"


def _gathered(name: str, header: SafetensorsHeader) -> ForeignTensors:
    found = ForeignTensors(header.tensors)
    texts = (_PREFIX, _SHARED, _MODULE)
    prefix, shared, module = (re.compile(text.replace("{name}", re.escape(name))) for text in texts)
    for tensor in header.tensors:
        if match := prefix.fullmatch(tensor) or shared.fullmatch(tensor):
            found.shared[f"{match['kind']}.{match['role']}"] = tensor
        elif match := module.fullmatch(tensor):
            found.modules.setdefault(match["path"], {})[match["role"]] = tensor
        else:
            found.unclaimed.append(tensor)
    return found


def _tokens(tensors: ForeignTensors, members: Mapping[str, MethodSettings]) -> int | None:
    """The number of tokens of a prompt or prefix: its rows, or the config's number for a flat one."""
    ends = ("prompt_embedding.weight", "self_prefix.wte.weight")
    for role, tensor in tensors.shared.items():
        if role.endswith(ends) and tensors.tensors[tensor].shape:
            return tensors.tensors[tensor].shape[0]
    length = members.get("prefix_tuning", {}).get("prefix_length")
    return length if type(length) is int and tensors.shared else None


def _modules(tensors: ForeignTensors, members: Mapping[str, MethodSettings]) -> Iterator[ModuleSpec]:
    """Only complete modules. The tensors of incomplete ones become unclaimed."""
    for path, roles in tensors.modules.items():
        method = _method_of(roles)
        if method not in members and len(members) == 1:
            method = next(iter(members))
        try:
            yield _module(tensors, path, method, AdapterConfig(members[method]))
        except (KeyError, IndexError, StopIteration, ValueError):
            tensors.unclaimed.extend(roles.values())


def _method_of(roles: Mapping[str, str]) -> str:
    """The member of a union that these tensors belong to."""
    if "lora_A" in roles:
        return "lora"
    if "lora_B" in roles:
        return "ia3"
    return "reft" if any(role.startswith("units.") for role in roles) else "bottleneck"


def _module(tensors: ForeignTensors, path: str, method: str, settings: AdapterConfig) -> ModuleSpec:
    shapes = tensors.shapes(path)
    match method:
        case "lora":
            (rank, fan_in), (fan_out, up_rank) = shapes["lora_A"], shapes["lora_B"]
            if rank != up_rank:
                raise ValueError(f"down to {rank}, and up from {up_rank}")
            return tensors.module(path, (rank, fan_in, fan_out), settings.number("alpha", 8) / rank)
        case "ia3":
            return tensors.module(path, (0, 0, shapes["lora_B"][0]))
        case "reft":
            rank, hidden = shapes["units.0.learned_source.weight"]
            return tensors.module(path, (rank, hidden, hidden), kind="block")
        case "bottleneck":
            written = settings.fields.get("scaling")
            scale = 1.0 if isinstance(written, str) else settings.number("scaling", 1.0)
            return tensors.module(path, _bottleneck(shapes), scale, "block")
        case _:
            return tensors.module(path, (0, 0, 0), kind="other")


def _bottleneck(shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, int, int]:
    """(width, inputs, outputs) of two Linear layers, or of the factors that Compacter has instead."""
    down = next(role for role in sorted(shapes) if re.fullmatch(r"adapter_down\.\d\.(weight|W_left|W)", role))
    stem = down.rpartition(".")[0]
    if "adapter_up.weight" in shapes:
        (width, fan_in), (fan_out, up_width) = shapes[down], shapes["adapter_up.weight"]
        if width != up_width:
            raise ValueError(f"down to {width}, and up from {up_width}")
        return width, fan_in, fan_out
    return shapes[f"{stem}.b"][0], _inputs(shapes, down), shapes["adapter_up.b"][0]


def _inputs(shapes: Mapping[str, tuple[int, ...]], down: str) -> int:
    """The inputs of Compacter's W, a sum of Kronecker products of a rule [n, n] with [in/n, …]."""
    return shapes[down][0] * shapes[down][1]


LAYOUT = AdapterLayout(config, describe)
