"""Which modules are transformers' `Conv1D`, whose weight is stored as [in, out] and not as [out, in].

A checkpoint does not contain the classes of its modules. A known model type determines the class; in other
models, a `Conv1D` always has a bias, with one element for each output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any

from adaptry.bases.model_classes import is_known_type

_MODELS = frozenset(
    ["gpt2", "gpt-sw3", "openai-gpt", "imagegpt", "decision_transformer", "clvp", "clvp_decoder"]
)
_MODULES = frozenset(["c_attn", "c_proj", "c_fc", "q_attn"])

Shape = tuple[int, ...] | None


class LinearClasses:
    """Distinguishes `Conv1D` from `torch.nn.Linear` in one base."""

    def __init__(
        self, shape_of: Callable[[str], Shape], names: Iterable[str], facts: Mapping[str, Any]
    ) -> None:
        """`shape_of` gives the shape of a parameter, or None if the model has no such parameter; `names`
        are the names of all parameters, read at most once. (`Any`: the base's facts are JSON.)
        """
        self._shape_of, self._names = shape_of, names
        self._types = frozenset(_model_types(facts))

    def is_conv1d(self, path: str) -> bool | None:
        """Whether the module at `path` is a `Conv1D`; None if that cannot be determined."""
        if self._types & _MODELS:
            return path.rpartition(".")[2] in _MODULES
        if self._types and all(map(is_known_type, self._types)):
            return False
        if (found := self._by_bias(path)) is not None:
            return found
        namesakes = self._by_name.get(path.rpartition(".")[2], frozenset())
        return next(iter(namesakes)) if len(namesakes) == 1 else None

    @property
    def has_conv1d(self) -> bool:
        """Whether a bias shows that a module of the base is a `Conv1D`."""
        return any(True in answers for answers in self._by_name.values())

    def _by_bias(self, path: str) -> bool | None:
        """Whether the module is a `Conv1D`, by its own parameters; None if these do not determine it."""
        weight, bias = self._shape_of(f"{path}.weight"), self._shape_of(f"{path}.bias")
        if weight is None or len(weight) != 2 or bias is None or len(bias) != 1:
            return False
        if self._shape_of(f"{path.removesuffix('.out_proj')}.in_proj_weight") is not None:
            return False  # the output projection of torch's MultiheadAttention
        if weight[0] == weight[1]:
            return None
        return bias[0] == weight[1]

    @cached_property
    def _by_name(self) -> Mapping[str, frozenset[bool]]:
        """Whether modules are a `Conv1D`, by the last part of their names; only for modules whose parameters
        determine it.
        """
        found: dict[str, set[bool]] = {}
        for name in self._names:
            path, _, parameter = name.rpartition(".")
            shape = self._shape_of(name) if parameter == "weight" else None
            if shape is None or len(shape) != 2:
                continue
            if (answer := self._by_bias(path)) is not None:
                found.setdefault(path.rpartition(".")[2], set()).add(answer)
        return {name: frozenset(answers) for name, answers in found.items()}


def is_named_conv1d(path: str, model_type: str) -> bool:
    """Whether the module at `path` has the name of a `Conv1D` of a known model type."""
    return model_type in _MODELS and path.rpartition(".")[2] in _MODULES


def _model_types(facts: Mapping[str, Any]) -> Iterator[str]:
    """The types of the model and of its parts."""
    for part in (facts, *facts.values()):
        if isinstance(part, Mapping) and isinstance(kind := part.get("model_type"), str):
            yield kind
