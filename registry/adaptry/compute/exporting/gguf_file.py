"""A GGUF LoRA for llama.cpp: `<its tensor>.lora_a` and `.lora_b`, and one `adapter.lora.alpha` for all.

llama.cpp multiplies by alpha over the rank of each tensor and knows no other scale (`llama-adapter.h ·
get_scale`), so a module whose scale is another one gets the rest of it into `lora_b`. Rows of queries and
keys are put in its order; left out, the file loads without a complaint and answers something else. Factors
are not turned where the base has its weight the other way round (GPT-2): they are [r, in] and [out, r] there
too.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptry.adapters.formats import PEFT
from adaptry.adapters.output_folder import output_folder
from adaptry.adapters.spec import ModuleSpec
from adaptry.compute.exporting.gguf_names import (
    GgufArchitecture,
    GgufTarget,
    architecture_of,
    gguf_targets,
    import_gguf,
)
from adaptry.compute.exporting.options import ExportOptions
from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter
from adaptry.compute.lazy_adapters.sites import lora_factors, plain_reason
from adaptry.core.errors import CheckFailed, Unsupported

if TYPE_CHECKING:
    from torch import Tensor

    from adaptry.compute.tensors.lowrank import Factors

NAME = "adapter.gguf"


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """A tensor of llama.cpp's and the modules that change it: one, or its experts by their numbers."""

    tensor: str
    modules: Mapping[int | None, ModuleSpec]


def write(parent: ParentAdapter, target: Path, options: ExportOptions) -> tuple[str, ...]:
    """Raises `Unsupported` (an architecture or a module that llama.cpp has no place for), `CheckFailed` (what
    no factors hold; no base known), `MissingDependency` (no gguf package), and what `output_folder`
    raises.
    """
    with output_folder(target, replace=options.may_replace) as folder:
        return write_into(parent, folder, options)


def write_into(parent: ParentAdapter, folder: Path, options: ExportOptions) -> tuple[str, ...]:
    """The file in a folder that the caller answers for."""
    facts = options.require_record("a GGUF adapter").facts
    _check_plain(parent)
    architecture = architecture_of(facts, parent.label)
    tensors = _placed(parent, architecture, facts)
    alpha, alphas = _alphas(parent.adapter.spec.modules)
    gguf = import_gguf()
    writer = gguf.GGUFWriter(folder / NAME, gguf.MODEL_ARCH_NAMES[gguf.MODEL_ARCH[architecture.name]])
    try:
        _add_words(gguf, writer, parent, options, alpha)
        for each in tensors:
            for name, tensor in _tensors(parent, each, architecture, facts, alpha):
                writer.add_tensor(name, tensor.float().contiguous().numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    except OSError as error:
        if (
            error.errno is None
        ):  # numpy's, of a disk that is full: how much it was to write, and how much it wrote
            raise OSError(errno.ENOSPC, str(error)) from error
        raise
    finally:
        writer.close()
    if alphas:
        return (f"{alphas} modules' scales are in their lora_b, beside the one alpha {alpha:g}",)
    return ()


def _check_plain(parent: ParentAdapter) -> None:
    adapter = parent.adapter
    if adapter.format is not PEFT:
        raise Unsupported(
            f"{parent.label} is in the layout of {adapter.format.tool}: export it with --for llama.cpp"
        )
    if reason := plain_reason(adapter):
        raise CheckFailed(
            f"{parent.label} {reason}, which no GGUF adapter holds:"
            " export it with --for llama.cpp, which repairs it"
        )
    if not adapter.spec.modules:
        raise CheckFailed(f"{parent.label} updates no module, so there is nothing to write")
    whole = [extra.target for extra in adapter.spec.extras if ".base_layer." not in extra.tensor]
    if whole or adapter.spec.unclaimed:
        first = (*whole, *adapter.spec.unclaimed)[0]
        raise CheckFailed(
            f"{parent.label} brings {first}, which no GGUF adapter holds: merge it (--format checkpoint)"
        )


def _placed(
    parent: ParentAdapter, architecture: GgufArchitecture, facts: Mapping[str, Any]
) -> list[GgufTensor]:
    """Every module's place, in the order of the modules' paths. (`Any`: JSON.)"""
    place = gguf_targets(architecture, int(facts.get("layers") or 1))
    found: dict[str, dict[int | None, ModuleSpec]] = {}
    for module in parent.adapter.spec.modules:
        where = place(module.path) if module.kind in ("linear", "embedding") else None
        _check_place(parent.label, module, where, facts)
        assert where is not None
        found.setdefault(where.tensor, {})[where.expert] = module
    return [GgufTensor(tensor, modules) for tensor, modules in found.items()]


def _check_place(label: str, module: ModuleSpec, where: GgufTarget | None, facts: Mapping[str, Any]) -> None:
    """(`Any`: JSON.)"""
    instead = "merge it (--format checkpoint) and convert the model with llama.cpp's own tool"
    if where is None:
        raise Unsupported(
            f"{label} changes {module.path} ({module.kind}), for which llama.cpp has no tensor in a"
            f" {facts['model_type']}: {instead}"
        )
    is_tied = bool(facts.get("tie_word_embeddings"))
    if is_tied and where.tensor in ("output.weight", "token_embd.weight"):
        raise Unsupported(
            f"{label} changes {module.path}, and its base has one weight for input and output, which"
            f" llama.cpp would change in both or in neither: {instead}"
        )


def _alphas(modules: Sequence[ModuleSpec]) -> tuple[float, int]:
    """The one alpha, never 0 (it must divide), and how many modules' scale it does not tell."""
    alphas = {module.scale * module.rank for module in modules}
    if len(alphas) == 1 and alphas != {0.0}:
        return alphas.pop(), 0
    return float(max(module.rank for module in modules)), len(modules)


def _add_words(gguf: Any, writer: Any, parent: ParentAdapter, options: ExportOptions, alpha: float) -> None:
    """(`Any`: an untyped package.)"""
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha)
    name = options.base_name or parent.adapter.config.base_name
    if name:
        writer.add_base_model_count(1)
        writer.add_base_model_name(0, name)


def _tensors(
    parent: ParentAdapter,
    tensor: GgufTensor,
    architecture: GgufArchitecture,
    facts: Mapping[str, Any],
    alpha: float,
) -> Iterator[tuple[str, Tensor]]:
    """The two factors as llama.cpp has them. (`Any`: JSON.)"""
    import torch

    from adaptry.compute.tensors.lowrank import pad_rank

    if None in tensor.modules:
        factors = _factors(parent, tensor.modules[None], architecture, facts, alpha)
        # An embedding's rows are looked up in lora_a (`llm_build_inp_embd`), so that one lies the other way
        # round.
        down = factors.down.T if tensor.tensor == "token_embd.weight" else factors.down
        yield f"{tensor.tensor}.lora_a", down
        yield f"{tensor.tensor}.lora_b", factors.up
        return
    count, rank = int(facts["experts"]), max(module.rank for module in tensor.modules.values())
    first = next(iter(tensor.modules.values()))
    down = torch.zeros(count, rank, first.fan_in)
    up = torch.zeros(count, first.fan_out, rank)
    for number, module in tensor.modules.items():
        own = _factors(parent, module, architecture, facts, alpha * module.rank / rank)
        filled = pad_rank(own, rank)
        down[number], up[number] = filled.down, filled.up
    yield f"{tensor.tensor}.lora_a", down
    yield f"{tensor.tensor}.lora_b", up


def _factors(
    parent: ParentAdapter,
    module: ModuleSpec,
    architecture: GgufArchitecture,
    facts: Mapping[str, Any],
    alpha: float,
) -> Factors:
    """With what llama.cpp does not multiply by in `up`, whose rows are in its order. (`Any`: JSON.)"""
    from adaptry.compute.lazy_adapters.rounding import check_values
    from adaptry.compute.tensors.lowrank import Factors

    found = check_values(lora_factors(parent.adapter, module), f"{parent.label}: the update of {module.path}")
    up, rest = found.up, module.scale * module.rank / alpha
    if rest != 1.0:
        up = up * rest
    heads = architecture.interleaved.get(module.path.rpartition(".")[2])
    return Factors(interleave_halves(up, int(facts[heads])) if heads else up, found.down)


def interleave_halves(up: Tensor, heads: int) -> Tensor:
    """Each head's rows, halves side by side before, one of each in turn after."""
    return up.reshape(heads, 2, up.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(up.shape)
