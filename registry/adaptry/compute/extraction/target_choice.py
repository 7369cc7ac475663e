"""How an adapter in PEFT's layout represents a change: as a LoRA of a matrix, a whole weight, a bias, or not
at all.

A checkpoint has names and shapes, but not the classes of modules. If these do not determine what a weight is,
it is written completely, which is right for any module. If PEFT could not load that either, the reason is
reported.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from adaptry.adapters.config import HEADS_OF_TASKS
from adaptry.adapters.tensor_names import INPUT_EMBEDDINGS, is_input_embedding, is_output_head
from adaptry.bases.conv1d import LinearClasses
from adaptry.bases.module_map import TRANSPOSED_EXPERTS
from adaptry.checks.binding.direct_weights import is_as_peft_expects, is_shared_embedding, model_types
from adaptry.compute.extraction.weight_pairs import WeightPair
from adaptry.compute.lazy_adapters.sites import WeightSite
from adaptry.core.lazy_dataclass import dataclass

_TASKS = (
    ("ForCausalLM", "CAUSAL_LM"),
    ("LMHeadModel", "CAUSAL_LM"),
    ("ForSequenceClassification", "SEQ_CLS"),
    ("ForTokenClassification", "TOKEN_CLS"),
    ("ForQuestionAnswering", "QUESTION_ANS"),
)
TargetKind = Literal["lora", "module", "bias", "embedding", "nothing"]
_EMBEDDINGS = INPUT_EMBEDDINGS | {"wpe", "relative_attention_bias"}
_ROUTERS = ("gate", "router")


@dataclass(frozen=True, slots=True)
class TargetChoice:
    """How a weight's change is represented. `lora`: at `site` (the weight is its transpose if
    `is_transposed`). `module`: in modules_to_save. `embedding`: written completely with the LoRA. `nothing`:
    not at all, for `reason`. `has_head`: it is tied to an lm_head, which gets the same update.
    """

    weight: WeightPair
    kind: TargetKind
    site: WeightSite | None = None
    is_transposed: bool = False
    reason: str = ""
    has_head: bool = False


class TargetChooser:
    """Chooses by the model's other weights: siblings and submodules show what a module is."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any]) -> None:
        """`shapes` are those of all weights, and `config` is the fine-tune's. (`Any`: its fields depend on
        the model.)
        """
        self._names = tuple(shapes)
        self._classes = LinearClasses(shapes.get, shapes, config)
        self._model_type = str(config.get("model_type") or "")
        self._model_types = model_types(config)
        self._task = task_of(config)
        self._owners = {
            path for name in self._names for path in _ancestors(name.rpartition(".")[0])
        }  # modules with submodules

    def choose(self, weight: WeightPair) -> TargetChoice:
        if weight.base is None or self.is_always_saved(weight):
            return self._whole(weight)
        if weight.base.shape != weight.shape:
            return self._of_other_shape(weight, weight.base.shape)
        if "bias" in weight.parameter:
            return TargetChoice(weight, "bias")
        if weight.parameter == "weight" and (choice := self._matrix(weight)):
            return choice
        if len(weight.shape) == 3 and weight.path.rpartition(".")[2] == "experts":
            return self._experts(weight)
        return self._whole(weight)

    def is_always_saved(self, weight: WeightPair) -> bool:
        """Whether the weight belongs to a head that PEFT always saves completely for the model's task."""
        return weight.path.rpartition(".")[2] in HEADS_OF_TASKS.get(self._task or "", ())

    def _matrix(self, weight: WeightPair) -> TargetChoice | None:
        path, shape = weight.path, weight.shape
        name = path.rpartition(".")[2]
        if is_shared_embedding(path, self._model_types):
            return TargetChoice(weight, "embedding")  # a copy of the module would not change its other users
        if not is_as_peft_expects(path, self._model_types, shape):
            return None
        if len(shape) == 2 and not self._is_router(path):
            if not is_output_head(weight.name) and (name in _EMBEDDINGS or "embed" in name):
                return self._embedding(weight)
            is_conv1d = self._classes.is_conv1d(path)
            if is_conv1d is None and self._classes.has_conv1d:
                return None  # it may be stored either way
            if is_conv1d:
                return TargetChoice(
                    weight, "lora", WeightSite(path, "linear", shape[1], shape[0]), is_transposed=True
                )
            return TargetChoice(weight, "lora", WeightSite(path, "linear", shape[0], shape[1]))
        is_conv = len(shape) in (4, 5) or (len(shape) == 3 and "conv" in name)
        if is_conv and shape[1] > 1:  # with one channel it may be grouped, which PEFT cannot merge
            return TargetChoice(weight, "lora", WeightSite(path, "conv", shape[0], shape[1], shape[2:]))
        return None

    def _embedding(self, weight: WeightPair) -> TargetChoice:
        rows, width = weight.shape
        is_causal = self._task == "CAUSAL_LM"
        if weight.tied and not is_causal and self._task in (None, "SEQ_2_SEQ_LM"):
            return TargetChoice(
                weight, "embedding"
            )  # written through the tie, whatever its other side is called
        site = WeightSite(weight.path, "embedding", width, rows)
        return TargetChoice(weight, "lora", site, is_transposed=True, has_head=weight.tied and is_causal)

    def _experts(self, weight: WeightPair) -> TargetChoice:
        experts, rows, columns = weight.shape
        is_transposed = self._model_type in TRANSPOSED_EXPERTS
        sides = (columns, rows) if is_transposed else (rows, columns)
        site = WeightSite(weight.path, "parameter", *sides, (), experts, weight.parameter)
        return TargetChoice(weight, "lora", site, is_transposed)

    def _is_router(self, path: str) -> bool:
        """A router is a parameter, not a Linear, in many mixtures of experts."""
        around, _, name = path.rpartition(".")
        return name in _ROUTERS and any(known.startswith(f"{around}.experts.") for known in self._names)

    def _of_other_shape(self, weight: WeightPair, base: tuple[int, ...]) -> TargetChoice:
        is_end = is_output_head(weight.name) or is_input_embedding(weight.path)
        if is_end and len(base) == 2 and base[1:] == weight.shape[1:] and weight.shape[0] > base[0]:
            return TargetChoice(weight, "embedding")
        reason = f"it is {list(weight.shape)}, but was {list(base)}"
        return TargetChoice(weight, "nothing", reason=reason)

    def _whole(self, weight: WeightPair) -> TargetChoice:
        """A choice of modules_to_save, which copies the module: if it has submodules, all of them would be
        copied.
        """
        if not weight.path or weight.path in self._owners:
            return TargetChoice(
                weight,
                "nothing",
                reason="it is a parameter of a module with submodules, which cannot be saved separately",
            )
        return TargetChoice(weight, "module")


def _ancestors(path: str) -> Iterable[str]:
    """The modules around the module at `path`."""
    while "." in path:
        path = path.rpartition(".")[0]
        yield path


def siblings(weights: Iterable[WeightPair]) -> Mapping[str, list[WeightPair]]:
    """The weights of each module."""
    found: dict[str, list[WeightPair]] = {}
    for weight in weights:
        found.setdefault(weight.path, []).append(weight)
    return found


def task_of(config: Mapping[str, Any]) -> str | None:
    """PEFT's name for the model's task; None if the class does not determine it. (`Any`: the model's
    config.)
    """
    listed = config.get("architectures")
    name = str(listed[0]) if isinstance(listed, list) and listed else ""
    if config.get("is_encoder_decoder"):
        return "SEQ_2_SEQ_LM"
    return next((task for end, task in _TASKS if name.endswith(end)), None)
