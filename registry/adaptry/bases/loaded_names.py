"""The names that modules and parameters have in the model onto which PEFT loads an adapter.

A checkpoint's own names are not yet those: transformers renames some families' tensors as it loads them, and
a model with a head holds the bare model under one attribute. PEFT looks a tensor of an adapter up under
exactly one name and drops it where there is no such name, so nothing here is tolerant.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from adaptry.adapters.base_record import TensorShape
from adaptry.adapters.key_layout import SPELLINGS
from adaptry.adapters.transformers_loading import tensors_in_memory
from adaptry.bases.model_classes import body_attribute, converts_adapters, has_head

_TASKS_WITH_HEAD = frozenset(["CAUSAL_LM", "SEQ_CLS", "SEQ_2_SEQ_LM", "TOKEN_CLS", "QUESTION_ANS"])
_OF_LANGUAGE = re.compile(r".+(?:ForCausalLM|LMHeadModel|ForConditionalGeneration)")
_OTHER_HEADS = frozenset(["whisper", "biogpt", "xlm", "flaubert", "bert", "roberta"])
_OLD_ENDS = ((".gamma", ".weight"), (".beta", ".bias"))


@dataclass(frozen=True)
class LoadedNames:
    """`parameters`: the names of the model's parameters. `with_head`: whether the model has a head."""

    parameters: frozenset[str]
    with_head: bool | None = None

    @cached_property
    def modules(self) -> frozenset[str]:
        """Every module, containers too: each dotted beginning of a parameter's name."""
        return frozenset(
            name[:place] for name in self.parameters for place, letter in enumerate(name) if letter == "."
        )

    @cached_property
    def holders(self) -> frozenset[str]:
        """The modules that hold a parameter themselves."""
        return frozenset(name.rpartition(".")[0] for name in self.parameters)


def loaded_names(
    tensors: Mapping[str, TensorShape],
    facts: Mapping[str, Any],
    *,
    task: str | None,
    model_class: str | None,
    used: Iterable[str],
    takes_disk_names: bool,
) -> LoadedNames:
    """The names in memory of a base with these tensors on disk and these facts (`Any`: JSON).

    `task` is the config's `task_type` and `model_class` its `auto_mapping.base_model_class`: they say whether
    the model has a head. Where they do not, it is the class that the base was saved from, or, if that is not
    known either, the one that has most of the names in `used`. `takes_disk_names`: the method is one whose
    tensors PEFT renames as transformers does the model's own, in the families for which it does.
    """
    model_type = str(facts.get("model_type") or "")
    disk = [_modern(name) for name in tensors]
    memory = {_modern(tensor.name) for tensor in tensors_in_memory(tensors, model_type)}
    memory |= {
        new + name.removeprefix(old) for name in disk for new, old in SPELLINGS if name.startswith(old)
    }
    if takes_disk_names and converts_adapters(model_type):
        memory |= set(disk)
    body = body_attribute(model_type)
    saved_with_head = _saved_with_head(facts)
    with_head = _with_head(memory, body, saved_with_head)
    if facts.get("tie_word_embeddings") is True and saved_with_head:
        with_head = with_head | _tied_head(facts, model_type)
    bare = {name.removeprefix(f"{body}.") for name in memory if name.startswith(f"{body}.")} or memory
    said = _loaded_with_head(task, model_class)
    if said is None:
        said = saved_with_head
    if said is None:
        wanted = set(used)
        said = len(wanted & _modules(with_head)) >= len(wanted & _modules(bare))
    return LoadedNames(frozenset(with_head if said else bare), said)


def _saved_with_head(facts: Mapping[str, Any]) -> bool | None:
    classes = facts.get("architectures") or ()
    return has_head(classes[0]) if classes else None


def _tied_head(facts: Mapping[str, Any], model_type: str) -> set[str]:
    """The output head that a model of language has in memory, where only the embedding is on disk."""
    is_language = _OF_LANGUAGE.fullmatch(facts["architectures"][0]) and model_type not in _OTHER_HEADS
    return {"lm_head.weight"} if is_language else set()


def _loaded_with_head(task: str | None, model_class: str | None) -> bool | None:
    """None where the config does not say. A model for FEATURE_EXTRACTION may be either."""
    if task in _TASKS_WITH_HEAD:
        return True
    return has_head(model_class) if model_class else None


def _with_head(memory: set[str], body: str, saved_with_head: bool | None) -> set[str]:
    """The names with the body's attribute in front, if the checkpoint is one of the bare model."""
    if not body or saved_with_head or any(name.startswith(f"{body}.") for name in memory):
        return memory
    return {f"{body}.{name}" for name in memory}


def _modules(names: Iterable[str]) -> set[str]:
    return {name.rpartition(".")[0] for name in names}


def _modern(name: str) -> str:
    for old, new in _OLD_ENDS:
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name
