"""The names of modules and parameters in the model onto which PEFT loads an adapter.

They may differ from the names in a checkpoint: transformers renames some families' tensors at load, and a
model with a head has the bare model as an attribute. PEFT looks up an adapter's tensor under exactly one
name, and drops it if that does not exist. So these rules are exact, not tolerant.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import field
from functools import cached_property
from typing import Any

from adaptry.adapters.base_record import TensorShape
from adaptry.adapters.key_layout import SPELLINGS
from adaptry.adapters.transformers_conversion import tensors_in_memory
from adaptry.bases.model_classes import body_attribute, converts_adapters, has_head
from adaptry.bases.tied_weights import HEADS, LANGUAGE_MODEL, tied_weights
from adaptry.core.lazy_dataclass import dataclass

_TASKS_WITH_HEAD = frozenset(["CAUSAL_LM", "SEQ_CLS", "SEQ_2_SEQ_LM", "TOKEN_CLS", "QUESTION_ANS"])
_BARE_TASK = "FEATURE_EXTRACTION"
"""PEFT's `AutoPeftModelForFeatureExtraction` loads the bare model, whatever class the base was saved from."""
_OTHER_HEADS = frozenset(
    ["whisper", "biogpt", "xlm", "flaubert", "bert", "roberta", "blip-2", "instructblip", "instructblipvideo"]
)
_CLIP_TOWERS = frozenset(["clip_vision_model", "siglip_vision_model"])
_TOWER, _INSIDE = "vision_tower.", "vision_model."
_UNSTORED: Mapping[str, tuple[str, ...]] = {
    "marian": ("encoder.embed_positions.weight", "decoder.embed_positions.weight")
}
"""Parameters of the bare model that transformers 5.24 computes and never saves, by model type."""
_SPELLED_AS_STORED = frozenset(["altclip"])
"""Models whose parts have the old names of a vision-language model's also in memory."""
_OLD_ENDS = ((".gamma", ".weight"), (".beta", ".bias"))


_Shapes = dict[str, tuple[int, ...] | None]


@dataclass(frozen=True)
class ModelNames:
    """`parameters` are the model's parameters, with shapes if they are known. `aliases` are other names under
    which PEFT accepts an adapter's tensors, with the parameter's own name. `stored` are all names on disk,
    with that name too. `chosen_with_head`: whether the model has a head, if only the adapter's names show
    that, and the base was saved as the other kind. `tied` are the weights that are tied to the embedding and
    not on disk.
    """

    parameters: Mapping[str, tuple[int, ...] | None]
    aliases: Mapping[str, str] = field(default_factory=dict)
    stored: Mapping[str, str] = field(default_factory=dict)
    chosen_with_head: bool | None = None
    tied: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @cached_property
    def modules(self) -> frozenset[str]:
        """Every module, including containers: each dotted prefix of a parameter's name."""
        return _dotted_prefixes(self.parameters)

    def has_module(self, path: str) -> bool:
        """Whether PEFT finds the module, under its name or an alias."""
        return path in self.modules or path in self._other_modules

    def has_parameter(self, name: str) -> bool:
        return name in self.parameters or name in self.aliases

    def own_module(self, path: str) -> str:
        """The module's name in the model, if `path` is an alias. PEFT compares a config with this one."""
        return path if path in self.modules else self._own_modules.get(path, path)

    def stored_module(self, path: str) -> str:
        """The name in the model of a module with a name on disk."""
        return path if path in self.modules else self._stored_modules.get(path, path)

    @cached_property
    def _own_modules(self) -> Mapping[str, str]:
        return _by_module(self.aliases)

    @cached_property
    def _stored_modules(self) -> Mapping[str, str]:
        return _by_module(self.stored)

    @cached_property
    def _other_modules(self) -> frozenset[str]:
        return _dotted_prefixes(self.aliases)

    @cached_property
    def holders(self) -> frozenset[str]:
        """The modules that directly have a parameter."""
        return frozenset(name.rpartition(".")[0] for name in self.parameters)

    def holders_of(self, parameter: str, dimensions: int) -> Iterator[str]:
        """The modules with a parameter of this name and at least `dimensions` dimensions."""
        end = f".{parameter}"
        for name, shape in self.parameters.items():
            if name.endswith(end) and shape is not None and len(shape) >= dimensions:
                yield name.removesuffix(end)


def model_names(
    tensors: Mapping[str, TensorShape],
    facts: Mapping[str, Any],
    *,
    task: str | None,
    model_class: str | None,
    used: Iterable[str],
    takes_disk_names: bool,
) -> ModelNames:
    """The names in memory of a base with these tensors on disk and these facts (`Any`: JSON).

    `task` is the config's `task_type` and `model_class` its `auto_mapping.base_model_class`; they determine
    whether the model has a head. If they do not, the model is the one that has most of the names in `used`,
    or the one from which the base was saved if both have as many: users choose the class, and PEFT loads an
    adapter of the bare model onto that model only.
    `takes_disk_names`: for this method, PEFT renames tensors like transformers does the model's, in the
    families that it converts.
    """
    model_type = str(facts.get("model_type") or "")
    loaded = list(tensors_in_memory(tensors, model_type))
    is_converted = converts_adapters(model_type)
    respelled = _respelled if is_converted and model_type not in _SPELLED_AS_STORED else str
    memory: _Shapes = {respelled(_modern(each.name)): each.shape for each in loaded}
    body = body_attribute(model_type)
    saved_with_head = _saved_with_head(facts)
    with_head = _with_head(memory, body, saved_with_head)
    if facts.get("tie_word_embeddings") is True and saved_with_head:
        with_head = _tied_head(facts, model_type) | with_head
    inside = {
        name.removeprefix(f"{body}."): shape for name, shape in memory.items() if name.startswith(f"{body}.")
    }
    bare = inside or memory
    has_head, is_chosen = _loaded_with_head(task, model_class), False
    if has_head is None:
        has_head = _fits_with_head(used, with_head, bare, saved_with_head)
        is_chosen = task != _BARE_TASK and saved_with_head == (not has_head)
    chosen = has_head if is_chosen else None
    parameters = with_head if has_head else bare
    tied = tied_weights(parameters, facts, has_head=has_head)
    parameters = {**parameters, **dict.fromkeys(_unstored(parameters, model_type, body))}
    stored = {
        _modern(part): _as_loaded(respelled(_modern(each.name)), body, parameters)
        for each in loaded
        for part in each.parts
    }
    is_own_code = not body and not is_converted  # no conversion of names is known
    if not (is_own_code or (takes_disk_names and is_converted)):
        return ModelNames(parameters, {}, stored, chosen, tied)
    on_disk = _with_vision_model if is_converted and _has_clip_tower(facts) else str
    aliases = {on_disk(part): name for part, name in stored.items()}
    return ModelNames(parameters, aliases, stored, chosen, tied)


def _unstored(parameters: Iterable[str], model_type: str, body: str) -> list[str]:
    """The names of parameters that the model has but that no checkpoint of it stores."""
    names = list(parameters) if model_type in _UNSTORED else []
    around = f"{body}." if any(name.startswith(f"{body}.") for name in names) else ""
    return [
        f"{around}{name}"
        for name in _UNSTORED.get(model_type, ())
        if any(held.startswith(f"{around}{name.partition('.')[0]}.") for held in names)
    ]


def _fits_with_head(
    used: Iterable[str], with_head: _Shapes, bare: _Shapes, saved_with_head: bool | None
) -> bool:
    """Whether more of the names in `used` are those of the model with a head."""
    required = set(used)
    more = len(required & _modules(with_head)) - len(required & _modules(bare))
    return more > 0 if more else saved_with_head is not False


def _by_module(names: Mapping[str, str]) -> Mapping[str, str]:
    """Maps the modules in the parameters' other names to the parameters' own modules."""
    return {
        other.rpartition(".")[0]: own.rpartition(".")[0]
        for other, own in names.items()
        if other.rpartition(".")[2] == own.rpartition(".")[2]  # experts that are fused have others
    }


def _as_loaded(name: str, body: str, parameters: _Shapes) -> str:
    """A parameter's name in the model, in which the bare model may have a prefix or not."""
    names = (name, f"{body}.{name}", name.removeprefix(f"{body}."))
    return next((each for each in names if each in parameters), name)


def _dotted_prefixes(names: Iterable[str]) -> frozenset[str]:
    return frozenset(name[:place] for name in names for place, letter in enumerate(name) if letter == ".")


def _respelled(name: str) -> str:
    """The name in memory, since transformers 4.52, of a vision-language model's tensor on disk."""
    for new, old in sorted(SPELLINGS, key=lambda spelling: -len(spelling[1])):
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def _has_clip_tower(facts: Mapping[str, Any]) -> bool:
    """Whether its vision tower is one whose `vision_model` transformers 5 removes from names."""
    part = facts.get("vision_config")
    return isinstance(part, Mapping) and part.get("model_type") in _CLIP_TOWERS


def _with_vision_model(name: str) -> str:
    """The name on disk under which PEFT accepts an adapter's tensor: it looks for the removed part, even if
    the checkpoint lacks it.
    """
    rest = name.removeprefix(_TOWER)
    is_without = name.startswith(_TOWER) and not rest.startswith(_INSIDE)
    return f"{_TOWER}{_INSIDE}{rest}" if is_without else name


def _saved_with_head(facts: Mapping[str, Any]) -> bool | None:
    classes = facts.get("architectures") or ()
    return has_head(classes[0]) if classes else None


def _tied_head(facts: Mapping[str, Any], model_type: str) -> _Shapes:
    """The output head that a language model has in memory if only the embedding is on disk."""
    is_language = LANGUAGE_MODEL.fullmatch(facts["architectures"][0]) and model_type not in _OTHER_HEADS
    return {f"{HEADS.get(model_type, 'lm_head')}.weight": None} if is_language else {}


def _loaded_with_head(task: str | None, model_class: str | None) -> bool | None:
    """Whether the model is loaded with a head; None if the config does not determine this."""
    if task in _TASKS_WITH_HEAD:
        return True
    return has_head(model_class) if model_class else None


def _with_head(memory: _Shapes, body: str, saved_with_head: bool | None) -> _Shapes:
    """The names, with the bare model's attribute in front if the checkpoint is of the bare model."""
    if not body or saved_with_head or any(name.startswith(f"{body}.") for name in memory):
        return memory
    return {f"{body}.{name}": shape for name, shape in memory.items()}


def _modules(names: Iterable[str]) -> set[str]:
    return {name.rpartition(".")[0] for name in names}


def _modern(name: str) -> str:
    for old, new in _OLD_ENDS:
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name
