"""An adapter's `adapter_config.json`, parsed as untrusted input.

A config is almost code: loaders import modules, open paths and compile patterns that it names. Here it is
parsed strictly. Fields that make a loader do more than load weights are refused; everything else is kept as
written. Only its scalars are used: the tensors, not the config, determine which modules an adapter has.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Mapping
from functools import cached_property
from typing import Any

from adaptry.adapters.config_schema import check_lora, check_method
from adaptry.adapters.patterns import PatternMatcher
from adaptry.core import strictjson
from adaptry.core.errors import Invalid, InvalidConfig
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.lazy_pattern import lazy_pattern

LIMITS = strictjson.JsonLimits(size=1 << 20, depth=16, nodes=10_000)
MAX_RANK = 1024 * 64
_MAX_PATTERN = 1024
_MAX_ITEMS = 4096
_MAX_NAMES = 16
"""Maximum number of layer lists, or of embeddings with trained rows, in a config; a model has two or
three."""

# Fields that make a loader import a module, open a path or run code.
_DANGEROUS = ("auto_map", "trust_remote_code", "custom_pipeline", "megatron_config")
_MODULE_NAME = lazy_pattern(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*", re.ASCII)
_MODEL_LIBRARIES = frozenset(
    ["transformers", "peft", "sentence_transformers", "diffusers", "timm", "torch", "torchvision"]
)
_MAPPINGS = ("rank_pattern", "alpha_pattern", "n_frequency_pattern", "block_size_pattern")
_WHOLE = ("target_modules", "exclude_modules", "feedforward_modules")
_PLAIN_NAME = lazy_pattern(r"[\w.-]*", re.ASCII)
_FLAGS = lazy_pattern(r"(?:\(\?[aiLmsux]+\))*")
_WITHOUT_SAVED_MODULES = frozenset(["TRAINABLE_TOKENS", "ADAPTION_PROMPT", "XLORA"])
HEADS_OF_TASKS = {
    "SEQ_CLS": ("classifier", "score"),
    "TOKEN_CLS": ("classifier", "score"),
    "QUESTION_ANS": ("qa_outputs",),
}
"""The modules that PEFT always saves completely for a task, and requires in a file if the model has them."""
_WITH_TOKEN_ROWS = frozenset(["LORA", "ADALORA"])
"""The types whose configs in PEFT have `trainable_token_indices` and `ensure_weight_tying`; others drop
them.
"""
_TIED_NAMES = frozenset(["embed_tokens", "lm_head"])
"""PEFT's `EMBEDDING_LAYER_NAMES`."""
_LOADER_PATHS = {"corda_config": ("cache_file", "covariance_file")}


def _anywhere(pattern: str) -> str:
    """A pattern that matches the whole of every name in which `pattern` is found."""
    found = _FLAGS.match(pattern)
    flags = found[0] if found else ""
    return f"{flags}(?s:.*?)(?:{pattern[len(flags) :]})(?s:.*)"


@dataclass(frozen=True)
class AdapterConfig:
    """The config as written (`fields`), with typed access to the fields that several modules need."""

    fields: Mapping[str, Any]  # JSON: each method gives its own fields a meaning

    @property
    def peft_type(self) -> str:
        """The method's name in upper case; empty if it is absent, null or not a string."""
        kind = self.fields.get("peft_type")
        return kind.upper() if isinstance(kind, str) else ""

    @property
    def base_name(self) -> str | None:
        """`base_model_name_or_path`: a hint, never opened."""
        name = self.fields.get("base_model_name_or_path")
        return name if isinstance(name, str) and name else None

    @property
    def unknown_library(self) -> str | None:
        """The module that `auto_mapping` names, unless it belongs to a known model library. It is never
        imported here.
        """
        mapping = self.fields.get("auto_mapping")
        library = mapping.get("parent_library") if isinstance(mapping, dict) else None
        is_known = library is None or library.partition(".")[0] in _MODEL_LIBRARIES
        return None if is_known else str(library)

    def number(self, key: str, default: float) -> float:
        """A finite number. Raises `InvalidConfig` for anything else, including booleans and strings."""
        value = self.fields.get(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InvalidConfig(f"adapter_config.json: {key} must be a number, not {str(value)[:40]!r}")
        return value

    def rank(self, key: str = "r", default: int = 8) -> int:
        """A whole number from 1 to `MAX_RANK`. Raises `InvalidConfig` for anything else."""
        return check_rank(self.fields.get(key, default), key)

    def flag(self, key: str) -> bool:
        return self.fields.get(key) is True

    def text(self, key: str) -> str | None:
        """A string of at most 128 characters; None for anything else."""
        value = self.fields.get(key)
        return value[:128] if isinstance(value, str) else None

    def names(self, key: str) -> tuple[str, ...]:
        """A list of module names. A single string counts as one name, an absent field as none."""
        value = self.fields.get(key)
        if value is None:
            return ()
        if isinstance(value, str):
            return (value,)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise InvalidConfig(f"adapter_config.json: {key} must be a string or a list of strings")
        return tuple(value)

    def pattern_values(self, key: str) -> Mapping[str, Any]:
        """`rank_pattern` or another mapping of patterns, in file order, which is the order in which PEFT
        tries them.
        """
        value = self.fields.get(key) or {}
        if not isinstance(value, dict):
            raise InvalidConfig(f"adapter_config.json: {key} must map patterns to values")
        return value

    @property
    def saved_modules(self) -> tuple[str, ...]:
        """The names in `modules_to_save`, and those that PEFT adds for the task; none for a method whose
        config in PEFT lacks this field, since PEFT ignores unknown fields.
        """
        if self.peft_type in _WITHOUT_SAVED_MODULES:
            return ()
        return (*self.names("modules_to_save"), *HEADS_OF_TASKS.get(str(self.fields.get("task_type")), ()))

    @cached_property
    def _saved(self) -> tuple[frozenset[str], tuple[int, ...]]:
        saved = frozenset(self.saved_modules)
        return saved, tuple(sorted({len(name) for name in saved}))

    def is_saved(self, path: str) -> bool:
        """Whether `path`, or a module that contains it, ends with a name in `saved_modules`."""
        saved, lengths = self._saved
        ends = [place for place, character in enumerate(path) if character == "."] if saved else []
        return any(
            path[end - length : end] in saved
            for end in (*ends, len(path))
            for length in lengths
            if length <= end
        )

    @cached_property
    def ties_saved(self) -> bool:
        """Whether `ensure_weight_tying` applies to saved modules. PEFT only knows embeddings and heads with
        two names, and does nothing for those of other families (`word_embeddings`, `wte`, `shared`).
        """
        named = any(name.rpartition(".")[2] in _TIED_NAMES for name in self.saved_modules)
        return named and self._ensures_tying

    @cached_property
    def ties_updates(self) -> bool:
        """Whether `ensure_weight_tying` applies to targeted modules; it does not if it applies to saved ones.
        Raises `InvalidConfig` if a pattern is refused, and `Unavailable`.
        """
        if not self._ensures_tying or self.ties_saved:
            return False
        targets = self.fields.get("target_modules")
        if isinstance(targets, str):
            return any(self.patterns.matches(targets, name) for name in sorted(_TIED_NAMES))
        return any(name.rpartition(".")[2] in _TIED_NAMES for name in self.names("target_modules"))

    @property
    def _ensures_tying(self) -> bool:
        return self.peft_type in _WITH_TOKEN_ROWS and self.flag("ensure_weight_tying")

    @property
    def token_indices(self) -> object:
        """The rows of embeddings that PEFT trains, as written: a list, a mapping of names to lists, or None.
        Each method has its own field; PEFT drops the fields of other methods.
        """
        if self.peft_type == "TRAINABLE_TOKENS":
            return self.fields.get("token_indices")
        return self.fields.get("trainable_token_indices") if self.peft_type in _WITH_TOKEN_ROWS else None

    @cached_property
    def excluding_patterns(self) -> Mapping[str, str]:
        """Items of `modules_to_save` that are not plain names, each with a pattern of the modules that PEFT
        does not adapt because of the item. PEFT saves modules whose names end with an item, but leaves out
        those that an item matches as a pattern.
        """
        return {
            item: rf"(?:(^|.*\.){item}($|\..*)).*"
            for item in self.saved_modules
            if _PLAIN_NAME.fullmatch(item) is None
        }

    @cached_property
    def searched_patterns(self) -> Mapping[str, str]:
        """Keys of OSF's `rank_pattern` that are not plain names, each with a pattern of the names in which
        PEFT finds the key anywhere.
        """
        keys = self.pattern_values("rank_pattern") if self.peft_type == "OSF" else ()
        return {key: _anywhere(key) for key in keys if _PLAIN_NAME.fullmatch(key) is None}

    def matches_rank_key(self, key: str, name: str) -> bool:
        """Whether a key of OSF's `rank_pattern` is found anywhere in the module `name`. Raises
        `InvalidConfig` if the pattern is refused, and `Unavailable`.
        """
        if _PLAIN_NAME.fullmatch(key) is not None:
            return re.search(key, name) is not None
        # The first call raises an error for a key that is a valid pattern only with the text around it.
        return self.patterns.matches(key, name) or self.patterns.matches(self.searched_patterns[key], name)

    @cached_property
    def layer_patterns(self) -> Mapping[str, tuple[str, str]]:
        """Items of `layers_pattern` that are not plain names, each with two patterns: one for the modules in
        which PEFT finds the item, and one for those whose layer is also in `layers_to_transform`. PEFT uses
        the number after the item's first match, and no number if another alternative of the item matches
        earlier.
        """
        items = [item for item in self.names("layers_pattern") if item and not _PLAIN_NAME.fullmatch(item)]
        listed = self.fields.get("layers_to_transform")
        layers = {layer for layer in (listed if isinstance(listed, list) else [listed]) if type(layer) is int}
        ends = "|".join(rf"(?<=\.{layer}\.)" for layer in sorted(layers) if layer >= 0) or "(?!)"
        found = {item: rf"(?>(?:^|.*?\.){item}\.(?P<idx>\d+)\.)" for item in items}
        return {item: (rf"{first}.*", rf"{first}(?(idx)(?:{ends})|(?!)).*") for item, first in found.items()}

    @cached_property
    def whole_patterns(self) -> tuple[str, ...]:
        """The config's patterns for whole names. PEFT must be able to compile all of them."""
        texts = [value for key in _WHOLE if isinstance(value := self.fields.get(key), str)]
        layers = [pattern for item, both in self.layer_patterns.items() for pattern in (item, *both)]
        searched = [pattern for both in self.searched_patterns.items() for pattern in both]
        return (*texts, *self.excluding_patterns.values(), *searched, *layers)

    @property
    def has_patterns(self) -> bool:
        """Whether the config has patterns. They are matched within a time limit, so results may vary."""
        return bool(self.whole_patterns) or any(self.fields.get(key) for key in _MAPPINGS)

    @cached_property
    def patterns(self) -> PatternMatcher:
        """The matcher of the config's patterns. Pass the modules' names to its `prepare` before querying
        it.
        """
        mappings = {key: value for key in _MAPPINGS if isinstance(value := self.fields.get(key), dict)}
        return PatternMatcher(mappings, self.whole_patterns)

    def value_for(self, key: str, name: str, default: Any) -> Any:
        """The value of `rank_pattern` or another mapping (`key`) for the module `name`: the value of the
        first pattern that matches, as PEFT resolves it. (`Any`: JSON.)

        Raises `InvalidConfig` if a pattern that may come first was refused, and `Unavailable` if patterns
        could not be matched now.
        """
        values = self.pattern_values(key)
        pattern = self.patterns.first(key, name) if values else None
        return default if pattern is None else values[pattern]

    def rank_for(self, name: str, default: int) -> int:
        """The rank that `rank_pattern` gives the module `name`. Raises the errors of `value_for`, and
        `InvalidConfig` for a value that is not a rank.
        """
        return check_rank(self.value_for("rank_pattern", name, default), "a value of rank_pattern")

    def alpha_for(self, name: str, default: float) -> float:
        """The alpha that `alpha_pattern` gives the module `name`. Raises the errors of `value_for`, and
        `InvalidConfig` for a value that is not a number.
        """
        value = self.value_for("alpha_pattern", name, default)
        if value is None:
            raise InvalidConfig(
                f"adapter_config.json: alpha_pattern has null for {name[:80]!a}, but needs a number"
            )
        return AdapterConfig({"a value of alpha_pattern": value}).number("a value of alpha_pattern", default)


def check_rank(value: object, key: str) -> int:
    if type(value) is not int or not 1 <= value <= MAX_RANK:
        raise InvalidConfig(
            f"adapter_config.json: {key} must be a whole number from 1 to {MAX_RANK}, not {str(value)[:40]!r}"
        )
    return value


def parse_config(data: bytes) -> AdapterConfig:
    """The config in `data`. Raises `InvalidConfig` with the field and the reason."""
    try:
        fields = strictjson.loads(data, LIMITS, "adapter_config.json")
    except Invalid as error:
        raise InvalidConfig(error.message) from None
    if not isinstance(fields, dict):
        raise InvalidConfig("adapter_config.json is not a JSON object")
    _refuse_code(fields)
    check_method(fields)
    config = AdapterConfig(fields)
    if config.peft_type == "LORA":
        check_lora(fields)
    for key in (
        "target_modules",
        "exclude_modules",
        "modules_to_save",
        "layers_pattern",
        "target_parameters",
    ):
        _check_patterns(config.names(key), key)
    for key in _MAPPINGS:
        value = fields.get(key)
        if isinstance(value, dict):
            _check_patterns(tuple(value), key)
    _check_count(config.names("layers_pattern"), "layers_pattern")
    tokens = fields.get("trainable_token_indices")
    _check_count(tokens if isinstance(tokens, dict) else (), "trainable_token_indices")
    return config


def _refuse_code(fields: Mapping[str, Any]) -> None:
    for key, value in fields.items():
        if (key in _DANGEROUS or key.startswith("_attn_implementation")) and value not in (
            None,
            False,
            {},
            [],
        ):
            raise InvalidConfig(
                f"adapter_config.json sets {key}, which makes a loader run more than weights; remove it"
            )
    _refuse_library(fields.get("auto_mapping"))
    if fields.get("megatron_core") not in (None, "megatron.core"):
        raise InvalidConfig(
            "adapter_config.json: megatron_core names a module to import; only megatron.core is allowed"
        )
    for key, inner in _LOADER_PATHS.items():
        value = fields.get(key)
        if isinstance(value, dict) and any(value.get(name) for name in inner):
            raise InvalidConfig(
                f"adapter_config.json: {key} names a file that PEFT would unpickle; set it to null"
            )


def _refuse_library(mapping: object) -> None:
    """Raises `InvalidConfig` if `parent_library` is a module of the standard library, which has no models.

    PEFT writes the module of the model's class there (`__main__` for a class of a script). AutoPeftModel
    imports it: before PEFT 0.20 any module, since then only those on a short list.
    """
    library = mapping.get("parent_library") if isinstance(mapping, dict) else mapping
    if library is None:
        return
    is_name = isinstance(library, str) and len(library) <= _MAX_PATTERN and _MODULE_NAME.fullmatch(library)
    if not is_name or str(library).partition(".")[0] in sys.stdlib_module_names:
        raise InvalidConfig(
            f"adapter_config.json: auto_mapping.parent_library would import {str(library)[:80]!a}; "
            "set auto_mapping to null and give task_type instead"
        )


def _check_count(items: Collection[str], key: str) -> None:
    """Raises `InvalidConfig` if there are too many patterns to match each with every module of a model."""
    if len(items) > _MAX_NAMES:
        raise InvalidConfig(f"adapter_config.json: {key} has {len(items):,} names (at most {_MAX_NAMES})")


def _check_patterns(patterns: tuple[str, ...], key: str) -> None:
    if len(patterns) > _MAX_ITEMS:
        raise InvalidConfig(
            f"adapter_config.json: {key} has {len(patterns):,} items (at most {_MAX_ITEMS:,})"
        )
    for pattern in patterns:
        if len(pattern) > _MAX_PATTERN or not pattern.isprintable():
            raise InvalidConfig(
                f"adapter_config.json: an item of {key} is too long or not printable: {pattern[:60]!a}"
            )
