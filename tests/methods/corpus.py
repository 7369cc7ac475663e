"""The conformance corpus: an adapter of every method, as PEFT itself makes and saves it, on every family it
supports.

    for case in cases(["loha"]): made = make(case, folder)

Weights are PEFT's initialisation plus noise, so that no factor is zero and no rotation is the identity.
Adaptry's code is not used: the corpus is exactly what PEFT wrote.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peft
import torch
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from safetensors.torch import load_file, save_file

from .families import FAMILIES, Family
from .variants import VARIANTS, Variant

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_REFUSALS = (ValueError, TypeError, NotImplementedError, LookupError, AttributeError, RuntimeError)
"""How PEFT says that it does not support a method on a module: mostly in words, at times by falling over
it.
"""


class NotByPeft(Exception):
    """PEFT itself cannot make or merge this adapter; the message is PEFT's."""


@dataclass(frozen=True)
class Case:
    """One adapter to make; `method` is PEFT's peft_type in lower case."""

    method: str
    variant: Variant
    family: str
    dtype: str

    def __str__(self) -> str:
        return f"{self.method}-{self.variant.name}-{self.family}-{self.dtype}"


def cases(
    methods: Iterable[str] = VARIANTS, families: Iterable[str] = FAMILIES, dtypes: Iterable[str] = DTYPES
) -> Iterator[Case]:
    """The cases, with each family only if it has modules of the kind that the variant targets."""
    chosen, dtypes = set(families), tuple(dtypes)
    for method in methods:
        for variant in VARIANTS.get(method, ()):
            for family in variant.families:
                if family in chosen and (not variant.targets or getattr(FAMILIES[family], variant.targets)):
                    yield from (Case(method, variant, family, dtype) for dtype in dtypes)


@dataclass(frozen=True)
class Made:
    """The folders of a case's base and adapter. `read_by_peft`: the adapter in the form that the current PEFT
    reads.
    """

    case: Case
    base: Path
    adapter: Path
    read_by_peft: Path

    def merged_by_peft(self, target: Path) -> Path:
        """The checkpoint that PEFT's `merge_and_unload` gives, saved by transformers. Raises `NotByPeft`."""
        if target.exists():
            return target
        family = FAMILIES[self.case.family]
        with _quiet():
            try:
                live = peft.PeftModel.from_pretrained(family.load(self.base), self.read_by_peft)
                merged = live.merge_and_unload()
            except _REFUSALS as error:
                raise NotByPeft(f"PEFT does not merge it: {error}") from error
            merged.save_pretrained(target)
        return family.renamed(target)


def train(model: Any) -> None:
    """Adds noise to every trainable parameter. (`Any`: PEFT is not typed.)"""
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad and parameter.is_floating_point():
                parameter += (torch.randn(parameter.shape) * 0.1).to(parameter.dtype)


def make(case: Case, folder: Path, train: Callable[[Any], None] = train) -> Made:
    """The case's base and adapter under `folder`; existing files are reused. Raises `NotByPeft`."""
    family = FAMILIES[case.family]
    base, adapter = folder / "bases" / f"{case.family}-{case.dtype}", folder / "adapters" / str(case)
    with _quiet():
        if not base.exists():
            family.save(base, DTYPES[case.dtype])
        if not adapter.exists():
            _save_adapter(case, family, base, adapter, train)
        if case.method == "bone":
            return Made(case, base, _as_bone(adapter), adapter)
    return Made(case, base, adapter, adapter)


def _save_adapter(case: Case, family: Family, base: Path, target: Path, train: Callable[[Any], None]) -> None:
    name = "miss" if case.method == "bone" else case.method
    kind = PEFT_TYPE_TO_CONFIG_MAPPING[peft.PeftType(name.upper())]
    fields = dict(case.variant.fields)
    if case.variant.targets:
        fields["target_modules"] = getattr(family, case.variant.targets)
    if case.family == "gpt2" and "fan_in_fan_out" in kind.__dataclass_fields__:
        fields["fan_in_fan_out"] = True
    model = family.load(base)
    if case.method == "xlora":
        fields["adapters"] = {"member": str(_save_member(family, base, target.with_suffix(".member")))}
        model.config.use_cache = False
    torch.manual_seed(1)
    try:
        adapted = peft.get_peft_model(model, kind(task_type=family.task, **fields))
    except _REFUSALS as error:
        raise NotByPeft(f"PEFT does not make it: {error}") from error
    if not any(parameter.requires_grad for parameter in adapted.parameters()):
        raise NotByPeft("PEFT does not make it: it silently leaves such modules unchanged")
    train(adapted)
    adapted.save_pretrained(target)
    if case.method == "xlora":
        _keep_first_layer(adapted, target / "adapter_model.safetensors")


def _keep_first_layer(adapted: Any, file: Path) -> None:
    """PEFT names X-LoRA's members by number, and saves no layer of its classifier that has a member's number.

    (`Any`: PEFT is not typed.)
    """
    layers = adapted.base_model.internal_xlora_classifier.state_dict()
    save_file({f"base_model.internal_xlora_classifier.{name}": layer for name, layer in layers.items()}, file)


def _save_member(family: Family, base: Path, target: Path) -> Path:
    """Saves a LoRA as a member of X-LoRA."""
    member = peft.get_peft_model(
        family.load(base), peft.LoraConfig(task_type=family.task, r=2, target_modules=family.linear)
    )
    train(member)
    member.save_pretrained(target)
    return target


def _as_bone(miss: Path) -> Path:
    """The same file as PEFT wrote it before 0.19, when MiSS was called Bone."""
    folder = miss.with_name(f"{miss.name}-as-bone")
    if folder.exists():
        return folder
    shutil.copytree(miss, folder)
    config, weights = folder / "adapter_config.json", folder / "adapter_model.safetensors"
    config.write_text(json.dumps({**json.loads(config.read_text()), "peft_type": "BONE"}))
    save_file(
        {name.replace("miss_", "bone_"): tensor for name, tensor in load_file(weights).items()}, weights
    )
    return folder


def _quiet() -> warnings.catch_warnings:
    """Suppresses the advice about training by PEFT and transformers."""
    return warnings.catch_warnings(action="ignore")
