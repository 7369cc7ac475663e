"""The modules of a model that PEFT adapts because of a config: `target_modules` and the fields that restrict
it.

The rules are those of `check_target_module_exists` (peft/tuners/tuners_utils.py, 0.21). Names are those in
memory, without PEFT's prefix.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from copy import copy
from typing import Any

from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.plain_patterns import dotted_suffixes
from adaptry.adapters.tensor_names import INPUT_EMBEDDINGS, OUTPUT_HEADS
from adaptry.bases.parameter_lookup import is_head_of_type
from adaptry.checks.binding.default_targets import default_targets

_NO_TARGETS = frozenset(["adaption_prompt", "shadow", "xlora", "trainable_tokens"])
"""Methods that do not use `target_modules`, or that have a special rule if it is missing."""
NO_EXCLUSION = frozenset(
    [
        "adamss",
        "adaption_prompt",
        "beft",
        "c3a",
        "frod",
        "glora",
        "gralora",
        "osf",
        "pvera",
        "randlora",
        "road",
        "shira",
        "supertuning",
        "tinylora",
        "trainable_tokens",
        "unilora",
        "vera",
        "xlora",
    ]
)
"""Methods without the field `exclude_modules`: PEFT drops it."""
NO_LAYERS = frozenset(
    [
        "adaption_prompt",
        "beft",
        "glora",
        "ia3",
        "ln_tuning",
        "osf",
        "poly",
        "road",
        "shira",
        "supertuning",
        "trainable_tokens",
        "xlora",
    ]
)
"""Methods without the field `layers_to_transform`."""
_EMBEDDINGS = INPUT_EMBEDDINGS | frozenset(
    [
        "embed_positions",
        "embed_tokens_per_layer",
        "lang_embeddings",
        "ngram_embeddings",
        "pos_emb",
        "position_embeddings",
        "positions_embed",
        "relative_attention_bias",
        "segment_emb",
        "token_embedding",
        "token_type_embeddings",
        "wpe",
    ]
)
_MATRIX = re.compile(
    r".*(?:proj|dense|linear|attn|query|key|value|head|fc\d*|gate|classifier|score)|[qkvo]|wi(?:_\d)?|wo"
)
_LAYER = re.compile(r".*?\.[^.]*\.(\d+)\.")


def is_head(path: str) -> bool:
    """Whether the module has the name of an output head."""
    return path.rpartition(".")[2] in OUTPUT_HEADS


def is_embedding(path: str) -> bool:
    """Whether the module has a name that transformers uses for embeddings only."""
    return path.rpartition(".")[2] in _EMBEDDINGS


def is_matrix(path: str) -> bool:
    """Whether the module has a name that transformers uses for matrices that are not embeddings."""
    return _MATRIX.fullmatch(path.rpartition(".")[2]) is not None


def _texts(value: object) -> frozenset[str]:
    """The texts in a list; empty for anything else."""
    return (
        frozenset(item for item in value if isinstance(item, str)) if isinstance(value, list) else frozenset()
    )


class ModuleTargets:
    """The modules that a config selects. Raises `InvalidConfig` if one of the config's patterns is refused,
    and `Unavailable`.
    """

    def __init__(self, config: AdapterConfig, method: str, facts: Mapping[str, Any]) -> None:
        """`facts` are those of the base's config (`Any`: JSON)."""
        model_type = str(facts.get("model_type") or "")
        self._config = config
        self._may_be_tied: bool = facts.get("tie_word_embeddings") is not False
        self._fields = config.fields
        self._method = method
        self._model_type = model_type
        targets = config.fields.get("target_modules")
        self.is_free: bool = method in _NO_TARGETS
        self._is_default = targets is None and not self.is_free
        self._targets = default_targets(method, model_type) if self._is_default else targets
        if method == "osf" and self._targets is None:
            self._targets = "all-linear"
        self.parameters: frozenset[str] = frozenset(config.names("target_parameters"))
        # Built once: a config may list thousands of names, and every module of the model is tested.
        self._ends = _texts(self._targets)
        self._excluded = _texts(self._fields.get("exclude_modules"))
        self._saved = frozenset(config.saved_modules)
        self._saved_lengths = sorted({len(name) for name in self._saved})

    @property
    def is_all_linear(self) -> bool:
        """Whether PEFT selects modules by class, which a name does not reliably show."""
        return isinstance(self._targets, str) and self._targets.lower() == "all-linear"

    @property
    def has_none(self) -> bool:
        """Whether the config selects no module at all."""
        return not self.is_free and not self._targets and not self.parameters

    def replaced_by(self, modules: Iterable[str], parameters: frozenset[str]) -> ModuleTargets:
        """The same selection with other `target_modules` and `target_parameters`."""
        changed = copy(self)
        changed._targets, changed._is_default = list(modules), False
        changed._ends, changed.parameters = frozenset(modules), parameters
        return changed

    def includes_parameter(self, name: str) -> bool:
        """Whether `target_parameters` selects the parameter; fields that restrict modules do not apply."""
        return not self.parameters.isdisjoint(dotted_suffixes(name))

    def names(self, path: str) -> bool:
        """Whether `target_modules` alone selects the module, for any method."""
        return self._is_targeted(path)

    def prepare(self, paths: Iterable[str]) -> None:
        """Adds the paths that will be tested, so that all patterns can be matched together."""
        self._config.patterns.prepare(paths)

    def reason_not_adapted(self, path: str) -> str | None:
        """Why PEFT does not adapt the module at `path`, as the end of a sentence; None if it does."""
        if self.is_free or self._is_tied_head(path):
            return None
        if self._is_excluded(path):
            return "exclude_modules excludes it"
        if (saved := self._saved_around(path)) is not None:
            return f"modules_to_save lists {saved}, and PEFT does not adapt modules that it saves whole"
        if not self._is_targeted(path):
            if self._is_default:
                return "target_modules is not set, and PEFT's default for this model does not include it"
            return "target_modules does not include it"
        if isinstance(self._targets, list) and path not in self._ends and not self._is_in_layers(path):
            return "layers_to_transform does not include its layer"
        return None

    def _is_tied_head(self, path: str) -> bool:
        """Whether the module is a head that shares the adapter of the embedding to which it is tied."""
        has_its_name = is_head(path) or is_head_of_type(path, self._model_type)
        return has_its_name and self._may_be_tied and self._config.ties_updates

    def _is_targeted(self, path: str) -> bool:
        targets = self._targets
        if isinstance(targets, list):
            return not self._ends.isdisjoint(dotted_suffixes(path))
        if not isinstance(targets, str):
            return False
        if self.is_all_linear:
            return not is_head(path) and not is_embedding(path)
        if self._is_default:
            return re.fullmatch(targets, path) is not None
        return self._config.patterns.matches(targets, path)

    def _is_excluded(self, path: str) -> bool:
        excluded = self._fields.get("exclude_modules") if self._method not in NO_EXCLUSION else None
        if isinstance(excluded, str) and excluded:
            return self._config.patterns.matches(excluded, path)
        return excluded is not None and not self._excluded.isdisjoint(dotted_suffixes(path))

    def _saved_around(self, path: str) -> str | None:
        """The item of modules_to_save that names the module or one around it, or that matches its path as a
        pattern.
        """
        if not self._saved:
            return None
        for item, pattern in self._config.excluding_patterns.items():
            if self._config.patterns.matches(pattern, path):
                return item
        inside = f".{path}."
        ends = [place for place, letter in enumerate(inside) if letter == "." and place]
        for end in ends:
            for length in self._saved_lengths:
                start = end - length
                if start >= 1 and inside[start - 1] == "." and inside[start:end] in self._saved:
                    return inside[start:end]
        return None

    def _is_in_layers(self, path: str) -> bool:
        wanted = self._fields.get("layers_to_transform") if self._method not in NO_LAYERS else None
        layers = [wanted] if isinstance(wanted, int) else wanted
        if not isinstance(layers, list) or not layers:
            return True
        patterns = [pattern for pattern in self._config.names("layers_pattern") if pattern]
        if not patterns:
            found = _LAYER.match(path)
            return found is not None and int(found[1]) in layers
        for pattern in patterns:  # the first that matches counts
            if pattern in self._config.layer_patterns:
                anywhere, in_layers = self._config.layer_patterns[pattern]
                if self._config.patterns.matches(anywhere, path):
                    return self._config.patterns.matches(in_layers, path)
            elif found := re.match(rf"(?:^|.*?\.){pattern}\.(\d+)\.", path):
                return int(found[1]) in layers
        return False
