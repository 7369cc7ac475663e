"""Parts that a tool's own loader drops, changes or refuses: a function and a table entry for each tool.

The rules were found by loading files with diffusers 0.42 and mlx-lm 0.32; the tests repeat this.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.formats import AdapterFormat
from adaptry.adapters.layouts import diffusers
from adaptry.adapters.spec import Spec
from adaptry.checks.codes import build_finding
from adaptry.checks.finding_text import fold_layer_numbers, format_count, shorten_names
from adaptry.core.report import Finding

_MLX_LAYER = re.compile(r"(?:.*\.)?layers\.(?P<layer>[0-9]+)\.(?P<module>.+)")


def with_tool_remedy(found: Finding, format: AdapterFormat) -> Finding:
    """The finding with this tool's remedy instead of PEFT's."""
    return found.model_copy(update={"remedy": f"save it again: {format.save_hint}"})


def _of_diffusers(adapter: Adapter, format: AdapterFormat) -> Iterator[Finding]:
    spec, fields = adapter.spec, adapter.config.fields
    if "alpha_unknown" in spec.traits:
        yield build_finding("alpha_unknown", "diffusers loads it with alpha = rank")
    alphas = [module.path for module in spec.modules if "alpha" in module.tensors]
    if alphas and fields["metadata"] is not None:
        yield build_finding("loader_refuses", "it has alphas both in its metadata and as tensors", alphas)
    elif of_unet := [path for path in alphas if path.startswith("unet.")]:
        reason = "for a UNet, diffusers reads alphas from tensors only under kohya's names"
        yield build_finding("loader_refuses", reason, of_unet)
    if others := [name for name in spec.unclaimed if "lora" not in name]:
        names = shorten_names(fold_layer_numbers(others))
        yield build_finding(
            "loader_refuses", f"diffusers refuses a file with {names}, which is not part of a LoRA", others
        )
    if fields["metadata"] is not None:
        declared = {
            module.path: diffusers.declared_rank(adapter.config, module.path) for module in spec.modules
        }
        yield from _other_ranks(spec, format, declared)
    worded = [m.path for m in spec.modules if "magnitude" in m.tensors and m.path.startswith("text_encoder")]
    if worded:
        reason = (
            "diffusers 0.42 does not load those of text encoders"
            f" ({shorten_names(fold_layer_numbers(worded))})"
        )
        yield build_finding("magnitudes_dropped", reason, worded)


def _of_kohya(adapter: Adapter, format: AdapterFormat) -> Iterator[Finding]:
    spec = adapter.spec
    if "alpha_unknown" in spec.traits:
        without = [
            module.path for module in spec.modules if module.path not in adapter.config.fields["alphas"]
        ]
        declared = adapter.config.fields.get("ss_network_alpha")
        trained = f", and its metadata says that it was trained with {str(declared)[:20]}" if declared else ""
        reason = (
            f"{format_count(len(without), 'module')} without alpha would be loaded with alpha = rank{trained}"
        )
        yield build_finding("alpha_unknown", reason, without)
    if "dora" in spec.traits:
        scaled = [module.path for module in spec.modules if "dora_scale" in module.tensors]
        reason = "diffusers drops kohya's dora_scale and loads the rest as a plain LoRA; LyCORIS reads it"
        yield build_finding("magnitudes_dropped", reason, scaled)


def _of_mlx(adapter: Adapter, format: AdapterFormat) -> Iterator[Finding]:
    parameters = adapter.config.fields["lora_parameters"]
    missing = [key for key in ("rank", "scale", "dropout") if key not in parameters]
    if missing:
        reason = f"lora_parameters in adapter_config.json has no {', '.join(missing)}, which mlx-lm needs"
        yield build_finding("config_incomplete", reason)
    declared = dict.fromkeys((module.path for module in adapter.spec.modules), adapter.config.rank())
    yield from _other_ranks(adapter.spec, format, declared)
    yield from _not_prepared_by_mlx(adapter, parameters.get("keys"))


def _not_prepared_by_mlx(adapter: Adapter, keys: object) -> Iterator[Finding]:
    """mlx-lm adapts the modules `keys` of the last `num_layers` layers (0 or less: of all), and those whose
    whole path is in `keys`. It refuses a file with tensors of other modules.
    """
    paths = [module.path for module in adapter.spec.modules]
    found = {path: match for path in paths if (match := _MLX_LAYER.fullmatch(path))}
    listed = {str(key) for key in keys} if isinstance(keys, list) else None
    inside = {path: match for path, match in found.items() if listed is None or path not in listed}
    count = adapter.config.fields.get("num_layers")
    if type(count) is int and count > 0 and found:
        first = max(int(match["layer"]) for match in found.values()) + 1 - count
        if early := [path for path, match in inside.items() if int(match["layer"]) < first]:
            reason = (
                f"num_layers is {count:,}, but it has {shorten_names(early)}, which is in an earlier layer"
            )
            yield build_finding("loader_refuses", reason, early)
    if listed is not None and (
        others := [path for path, match in inside.items() if match["module"] not in listed]
    ):
        names = shorten_names(fold_layer_numbers(others))
        yield build_finding("loader_refuses", f"keys in lora_parameters does not list {names}", others)


def _other_ranks(spec: Spec, format: AdapterFormat, declared: Mapping[str, int]) -> Iterator[Finding]:
    wrong: dict[str, list[str]] = {}
    for module in spec.modules:
        rank = declared[module.path]
        if module.rank % rank if module.kind == "parameter" else module.rank != rank:
            reason = f"the factors have rank {module.rank}, but the file's settings declare {rank}"
            wrong.setdefault(reason, []).append(module.path)
    for reason, paths in wrong.items():
        text = f"{reason}, in {shorten_names(fold_layer_numbers(paths))}"
        yield with_tool_remedy(build_finding("rank_mismatch", text, paths), format)


def _of_torchtune(adapter: Adapter, format: AdapterFormat) -> Iterator[Finding]:
    missing = [key for key in ("r", "lora_alpha") if key not in adapter.config.fields]
    if missing:
        reason = f"adapter_config.json has no {', '.join(missing)}, so its scale is unknown"
        yield build_finding("config_incomplete", reason)
    declared = dict.fromkeys((module.path for module in adapter.spec.modules), adapter.config.rank())
    yield from _other_ranks(adapter.spec, format, declared)


RULES: Mapping[str, Callable[[Adapter, AdapterFormat], Iterator[Finding]]] = {
    "diffusers": _of_diffusers,
    "kohya": _of_kohya,
    "mlx": _of_mlx,
    "torchtune": _of_torchtune,
}
