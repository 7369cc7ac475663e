"""A GGUF LoRA for llama.cpp: `<its tensor>.lora_a` and `.lora_b`, and one `adapter.lora.alpha` for all.

llama.cpp multiplies by alpha / rank of each tensor and knows no other scale (`llama-adapter.h · get_scale`),
so the rest of a different scale is multiplied into `lora_b`. Rows of queries and keys are put in llama.cpp's
order; otherwise the file would load without an error and give wrong answers. Factors are not transposed if
the base stores its weight transposed (GPT-2): they are [r, in] and [out, r] there too.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptry.adapters.formats import PEFT
from adaptry.adapters.gguf_text import PREPARED_FOR
from adaptry.adapters.methods.plain_lora import plain_reason
from adaptry.adapters.output_folder import output_folder
from adaptry.adapters.spec import ModuleSpec
from adaptry.compute.exporting.gguf_names import (
    GgufArchitecture,
    GgufTarget,
    architecture_of,
    gguf_targets,
    import_gguf,
    language_facts,
)
from adaptry.compute.exporting.options import ExportOptions
from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter
from adaptry.compute.lazy_adapters.sites import lora_factors
from adaptry.core.errors import CheckFailed, Unsupported
from adaptry.core.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from torch import Tensor

    from adaptry.compute.tensors.lowrank import Factors

NAME = "adapter.gguf"
_WITH_FACTORS = frozenset(["linear", "embedding", "parameter"])
"""Kinds of modules whose factors llama.cpp can hold. Among parameters, that is a router's weight: PEFT's
name for experts that are in one parameter is that of no tensor."""


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """A tensor of llama.cpp and the modules that change it: one, or its experts by number."""

    tensor: str
    modules: Mapping[int | None, ModuleSpec]


def write(parent: ParentAdapter, target: Path, options: ExportOptions) -> tuple[str, ...]:
    """Writes the file. Raises `Unsupported` (an architecture or module that llama.cpp lacks), `CheckFailed`
    (parts that are not factors; no known base), `MissingDependency` (no gguf package), and the errors of
    `output_folder`.
    """
    with output_folder(target, replace=options.may_replace, sources=[parent.adapter.content]) as folder:
        return write_into(parent, folder, options)


def write_into(parent: ParentAdapter, folder: Path, options: ExportOptions) -> tuple[str, ...]:
    """Writes the file into a folder that the caller manages."""
    record = options.require_record("a GGUF adapter")
    _check_plain(parent)
    architecture = architecture_of(record.facts, parent.label)
    facts = language_facts(record.facts)
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
        if error.errno is None:  # numpy's message for a full disk: the bytes requested, and the bytes written
            raise OSError(errno.ENOSPC, str(error)) from error
        raise
    finally:
        writer.close()
    if alphas:
        return (f"the scales of {alphas} modules are in their lora_b, in addition to the alpha {alpha:g}",)
    return ()


def _check_plain(parent: ParentAdapter) -> None:
    adapter = parent.adapter
    if adapter.format is not PEFT:
        raise Unsupported(
            f"{parent.label} is in the layout of {adapter.format.tool}: export it with --for llama.cpp"
        )
    if reason := plain_reason(adapter):
        raise CheckFailed(
            f"{parent.label} {reason}, which a GGUF adapter cannot represent:"
            " export it with --for llama.cpp, which repairs it"
        )
    if not adapter.spec.modules:
        raise CheckFailed(f"{parent.label} updates no module, so there is nothing to write")
    whole = [extra.target for extra in adapter.spec.extras if ".base_layer." not in extra.tensor]
    if whole or adapter.spec.unclaimed:
        first = (*whole, *adapter.spec.unclaimed)[0]
        raise CheckFailed(
            f"{parent.label} contains {first}, which a GGUF adapter cannot hold: merge it (--format"
            " checkpoint)"
        )


def _placed(
    parent: ParentAdapter, architecture: GgufArchitecture, facts: Mapping[str, Any]
) -> list[GgufTensor]:
    """The place of every module, in the order of their paths. (`Any`: JSON.)"""
    place = gguf_targets(architecture, int(facts.get("layers") or 1))
    found: dict[str, dict[int | None, ModuleSpec]] = {}
    for module in parent.adapter.spec.modules:
        where = place(module.path) if module.kind in _WITH_FACTORS else None
        _check_place(parent.label, module, where, facts)
        assert where is not None
        found.setdefault(where.tensor, {})[where.expert] = module
    return [GgufTensor(tensor, modules) for tensor, modules in found.items()]


def _check_place(label: str, module: ModuleSpec, where: GgufTarget | None, facts: Mapping[str, Any]) -> None:
    """(`Any`: JSON.)"""
    instead = "merge it (--format checkpoint) and convert the model with llama.cpp's converter"
    if where is None:
        raise Unsupported(
            f"{label} changes {module.path} ({module.kind}), for which llama.cpp has no tensor in a"
            f" {facts['model_type']}: {instead}"
        )
    is_tied = bool(facts.get("tie_word_embeddings"))
    if is_tied and where.tensor in ("output.weight", "token_embd.weight"):
        raise Unsupported(
            f"{label} changes {module.path}, but its base has one weight for input and output, which"
            f" llama.cpp would change in both places or in neither: {instead}"
        )


def _alphas(modules: Sequence[ModuleSpec]) -> tuple[float, int]:
    """The common alpha, never 0 (it is a divisor), and the number of modules whose scale differs from it."""
    alphas = {module.scale * module.rank for module in modules}
    if len(alphas) == 1 and alphas != {0.0}:
        return alphas.pop(), 0
    return float(max(module.rank for module in modules)), len(modules)


def _add_words(gguf: Any, writer: Any, parent: ParentAdapter, options: ExportOptions, alpha: float) -> None:
    """(`Any`: an untyped package.)"""
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha)
    writer.add_string(PREPARED_FOR, "llama.cpp")
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
    """The two factors in llama.cpp's layout. (`Any`: JSON.)"""
    import torch

    from adaptry.compute.tensors.lowrank import pad_rank

    if None in tensor.modules:
        factors = _factors(parent, tensor.modules[None], architecture, facts, alpha)
        # An embedding's rows are looked up in lora_a (`llm_build_inp_embd`), so that factor is transposed.
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
    """The factors: `up` includes the part of the scale that llama.cpp does not apply, with rows in its order.
    (`Any`: JSON.)
    """
    from adaptry.compute.lazy_adapters.rounding import check_values
    from adaptry.compute.tensors.lowrank import Factors

    found = check_values(lora_factors(parent.adapter, module), f"{parent.label}: the update of {module.path}")
    up, rest = found.up, module.scale * module.rank / alpha
    if rest != 1.0:
        up = up * rest
    heads = architecture.interleaved.get(module.path.rpartition(".")[2])
    return Factors(interleave_halves(up, int(facts[heads])) if heads else up, found.down)


def interleave_halves(up: Tensor, heads: int) -> Tensor:
    """Interleaves the two halves of each head's rows: from [heads·d, r] to the same shape."""
    return up.reshape(heads, 2, up.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(up.shape)
