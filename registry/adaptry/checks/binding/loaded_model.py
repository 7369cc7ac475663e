"""The model that PEFT prepares for an adapter: the names of its modules, and which of them PEFT adapts."""

from __future__ import annotations

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.base_record import BaseRecord
from adaptry.adapters.config import AdapterConfig
from adaptry.bases.conv1d import LinearClasses
from adaptry.bases.model_classes import body_attribute, expert_family, has_head, is_known_type
from adaptry.bases.model_names import ModelNames, model_names
from adaptry.bases.parameter_lookup import ParameterNames
from adaptry.checks.binding.expert_targets import ExpertTargets, expert_targets
from adaptry.checks.binding.forced_ties import HEAD, is_forced_tie, is_input_among_tied
from adaptry.checks.binding.targets import ModuleTargets
from adaptry.core.lazy_dataclass import dataclass

BASE_LAYER = ".base_layer"


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A base as transformers loads it for an adapter. `known` finds the intended module of a name.
    `classes` are those of the matrices. `experts` are the targets that PEFT made of the config's, if it
    converts the family. `saved_class` is the class from which the base was saved, if it is known.
    `is_head_forced`: whether PEFT ties the rows of the head to the embedding's, although transformers does
    not. `is_input_among_tied`: whether PEFT fails to tie modules to the embedding.
    """

    adapter: Adapter
    model_type: str
    names: ModelNames
    targets: ModuleTargets
    known: ParameterNames
    classes: LinearClasses
    experts: ExpertTargets | None = None
    saved_class: str = ""
    is_head_forced: bool = False
    is_input_among_tied: bool = False

    @property
    def chosen_class(self) -> str | None:
        """A sentence if only the names in the file show whether the model has a head, and the base was saved
        as the other kind; otherwise None.
        """
        if self.names.chosen_with_head is None:
            return None
        kind = "a model with a head" if self.names.chosen_with_head else "the bare model (AutoModel)"
        return f"its names are those of {kind}, but the base was saved as {self.saved_class}"

    def reason_not_adapted(self, path: str) -> str | None:
        """Why PEFT does not adapt the module or its weight. With an attention, it also adapts the output
        projection.
        """
        if self.targets.includes_parameter(f"{path}.weight"):
            return None
        shape = self.names.parameters.get(f"{path}.weight")
        is_attention = f"{path}.in_proj_weight" in self.names.parameters
        if self.targets.is_all_linear and (is_attention or (shape is not None and len(shape) != 2)):
            return "target_modules is all-linear, but this is not a linear layer"
        why = self.targets.reason_not_adapted(path)
        whole = path.removesuffix(".out_proj")
        if why is not None and f"{whole}.in_proj_weight" in self.names.parameters:
            return self.targets.reason_not_adapted(whole)
        return why

    def has_module(self, path: str, is_tied: bool) -> bool:
        """Whether the model has the module; it may be a head that is tied to the embedding."""
        if self.names.has_module(path):
            return True
        if path == HEAD and self._has_other_head:
            return False
        around = path.rpartition(".")[0]
        return is_tied and (not around or self.names.has_module(around))

    @property
    def _has_other_head(self) -> bool:
        """Whether the model has a head of another name or no head. (The checkpoint stores no tensor of a
        head.)
        """
        is_encoder = self.saved_class.endswith("EncoderModel")
        return is_encoder or bool(has_head(self.saved_class) and is_known_type(self.model_type))

    def loaded_path(self, path: str) -> str:
        """The module's name in the model, in which the bare model may have a prefix that a checkpoint
        lacks.
        """
        path = self.names.stored_module(path)
        if path in self.names.modules:
            return path
        body = f"{body_attribute(self.model_type)}."
        names = (f"{body}{path}", path.removeprefix(body))
        return next((name for name in names if name in self.names.modules), path)


def load_model(adapter: Adapter, base: BaseRecord) -> LoadedModel:
    """The model. Raises `InvalidConfig` if a pattern of the config is refused, and `Unavailable`."""
    spec, config = adapter.spec, adapter.config
    model_type = str(base.facts.get("model_type") or "")
    model_class = _model_class(config)
    targets = ModuleTargets(config, spec.method, base.facts)
    paths = [bare_path(module.path) for module in spec.modules]
    replaced = [extra.target.rpartition(".")[0] for extra in spec.extras]
    names = model_names(
        base.tensors,
        base.facts,
        task=spec.task,
        model_class=model_class,
        used=[*paths, *replaced],
        takes_disk_names=spec.method == "lora",
    )
    targets.prepare({*paths, *names.modules})
    known, experts = ParameterNames(base.tensors, base.facts), None
    if spec.method == "lora" and expert_family(model_type):
        listed, parameters = config.fields.get("target_modules"), config.names("target_parameters")
        if experts := expert_targets(targets, listed, parameters, names, model_type):
            targets = targets.replaced_by(experts.modules, experts.parameters)
    classes = LinearClasses(names.parameters.get, names.parameters, base.facts)
    (saved_class, *_) = base.facts.get("architectures") or ("",)
    return LoadedModel(
        adapter,
        model_type,
        names,
        targets,
        known,
        classes,
        experts,
        saved_class,
        is_head_forced=is_forced_tie(base.facts, f"{HEAD}.weight" in base.tensors),
        is_input_among_tied=is_input_among_tied(base.facts, base.tensors),
    )


def bare_path(path: str) -> str:
    """A module's path without PEFT's wrappers."""
    return path.replace(BASE_LAYER, "")


def _model_class(config: AdapterConfig) -> str | None:
    mapping = config.fields.get("auto_mapping")
    name = mapping.get("base_model_class") if isinstance(mapping, dict) else None
    return name if isinstance(name, str) else None
