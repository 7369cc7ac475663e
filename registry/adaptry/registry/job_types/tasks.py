"""The payload of each kind of job, in one table. `jobs.dispatch` runs them; nothing here computes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, ValidationError

from adaptry.core.errors import Invalid
from adaptry.core.option_names import ArgumentNames
from adaptry.core.refs import AdapterName, Ref, split_weight
from adaptry.registry.job_types.evaluation import EvaluationOptions
from adaptry.registry.job_types.fields import BaseKey, BaseName, Dtype, RefText, RuntimeText, WeightedRefText
from adaptry.registry.job_types.preview import MethodDescription, ParameterChoice
from adaptry.registry.job_types.task import JobTask, reason_of

if TYPE_CHECKING:
    from adaptry.compute.recipes.combine import CombineRecipe
    from adaptry.compute.recipes.merge import MergeRecipe, RecipeInput


class _MultiAdapterTask(JobTask):
    """A task with several adapters and a combining method."""

    inputs: tuple[WeightedRefText, ...] = Field(min_length=1, max_length=64)
    method: str = Field(default="linear", max_length=64)
    parameters: dict[str, Any] = Field(default={})  # checked against the method's table
    seed: int = Field(default=0, ge=0, lt=1 << 63)
    other_base: bool = False

    @property
    def refs(self) -> tuple[str, ...]:
        return tuple(split_weight(text)[0] for text in self.inputs)

    @property
    def recipe(self) -> MergeRecipe | CombineRecipe:
        """The recipe of the corresponding command. Raises `ValidationError` if it is invalid."""
        raise NotImplementedError

    def check(self) -> None:
        from adaptry.compute.combining import get_combine_method

        get_combine_method(self.recipe.method).check_values(self.parameters)

    def weighted_inputs(self) -> tuple[RecipeInput, ...]:
        """The inputs in a recipe's form."""
        from adaptry.compute.recipes.merge import RecipeInput

        return tuple(
            RecipeInput(source=source, weight=weight) for source, weight in map(split_weight, self.inputs)
        )


class _SingleAdapterTask(JobTask):
    """A version derived from another."""

    source: RefText
    to: AdapterName
    rank: int | None = Field(default=None, ge=1, le=1 << 16)
    energy: float | None = Field(default=None, gt=0, le=1)

    @property
    def namespace(self) -> str:
        return self.to.namespace

    @property
    def refs(self) -> tuple[str, ...]:
        return (self.source,)

    def check(self) -> None:
        if self.rank is not None and self.energy is not None:
            raise Invalid("pass rank or energy, not both: each determines the rank")


class MergeTask(_MultiAdapterTask):
    """`adaptry merge`, whose result is stored as a new base with the name `to`. `divide`: each weight file is
    computed by a separate step, even if the result is small. Without it, one step computes all files of a
    result of at most 4 GiB.
    """

    summary: ClassVar[str] = (
        "Merge adapters into a base; the result is a stored base. Several runners share a large merge."
    )
    base: BaseKey
    to: BaseName
    dtype: Dtype | None = None
    max_shard_size: int | None = Field(default=None, ge=1 << 20)
    resize_vocab: bool = False
    base_copy: Literal["original", "dequantised"] | None = None
    rounding: Literal["float32", "peft"] = "float32"
    divide: bool = False

    @property
    def recipe(self) -> MergeRecipe:
        from adaptry.compute.recipes.merge import MergeRecipe

        how = self.model_dump(exclude={"inputs", "to", "divide"})
        return MergeRecipe(inputs=self.weighted_inputs(), **how)


class CombineTask(_MultiAdapterTask):
    """`adaptry combine`: one adapter out of several, as a version of `to`."""

    summary: ClassVar[str] = "Combine adapters of one base into one adapter."
    to: AdapterName
    rank: int | None = Field(default=None, ge=1, le=1 << 16)
    energy: float | None = Field(default=None, gt=0, le=1)
    uniform: bool = False
    dtype: Dtype = "F32"

    @property
    def namespace(self) -> str:
        return self.to.namespace

    @property
    def recipe(self) -> CombineRecipe:
        from adaptry.compute.recipes.combine import CombineRecipe

        return CombineRecipe(inputs=self.weighted_inputs(), **self.model_dump(exclude={"inputs", "to"}))


class PreviewTask(CombineTask):
    """`adaptry combine --dry-run`, and how the inputs agree; nothing is created."""

    summary: ClassVar[str] = "Preview a combination: its plan, sign conflicts and overlaps."


class ConvertTask(_SingleAdapterTask):
    """`adaptry convert`: an adapter of any method as a plain LoRA, as a version of `to`."""

    summary: ClassVar[str] = "Convert an adapter of any method to a plain LoRA."
    uniform: bool = False
    drop_bias: bool = False


class ExportTask(_SingleAdapterTask):
    """`adaptry export --for`: an adapter repaired for an engine, as a version of `to`."""

    summary: ClassVar[str] = "Repair an adapter for an engine that would not serve it as trained."
    runtime: RuntimeText
    exact: bool = False
    max_error: float | None = Field(default=None, ge=0, le=1)


class WeightStatisticsTask(JobTask):
    """Measures what the comparison page shows about weights: statistics of each version, and the distance of
    each from the first. Stored figures are not computed again.
    """

    summary: ClassVar[str] = "Measure the updates of versions: norms, singular values and distances."
    versions: tuple[RefText, ...] = Field(min_length=1, max_length=16)

    @property
    def namespace(self) -> str:
        return Ref.parse(self.versions[0]).name.namespace

    @property
    def refs(self) -> tuple[str, ...]:
        return self.versions


class EvaluateTask(EvaluationOptions, JobTask):
    """`adaptry eval` of a version whose base is stored: the results become evidence."""

    summary: ClassVar[str] = "Evaluate a version with lm-eval, and add the results to it as evidence."
    ref: RefText
    base: BaseKey | None = None

    @property
    def namespace(self) -> str:
        return Ref.parse(self.ref).name.namespace

    @property
    def refs(self) -> tuple[str, ...]:
        return (self.ref,)


class FingerprintBaseTask(JobTask):
    """`adaptry base add --full`, of a base that is known: digests over every weight, as evidence."""

    summary: ClassVar[str] = "Read every weight of a base and store its full digests as evidence."
    base: BaseKey


class VerifyTask(JobTask):
    """Verification of all stored rows and files."""

    summary: ClassVar[str] = "Find rows and files that have changed since they were stored."
    read_bytes: bool = True

    def is_negative(self, result: Mapping[str, Any]) -> bool:
        return bool(result.get("problems"))


class CollectTask(JobTask):
    """`adaptry gc`: marks unused files, and deletes those that were marked `grace_hours` ago."""

    summary: ClassVar[str] = "Delete files that no version needs."
    grace_hours: float = Field(default=24, ge=0, le=24 * 3650)
    dry_run: bool = False


class ReplicateTask(JobTask):
    """`adaptry copy` of a version to one of the other registries that the runner is configured with."""

    summary: ClassVar[str] = "Copy a version to another registry, by the name in the runners' configuration."
    ref: RefText
    remote: str = Field(min_length=1, max_length=64)
    to: AdapterName

    @property
    def refs(self) -> tuple[str, ...]:
        return (self.ref,)


TASKS: Mapping[str, type[JobTask]] = {
    "merge": MergeTask,
    "combine": CombineTask,
    "preview": PreviewTask,
    "convert": ConvertTask,
    "export": ExportTask,
    "weight-statistics": WeightStatisticsTask,
    "evaluate": EvaluateTask,
    "fingerprint": FingerprintBaseTask,
    "verify": VerifyTask,
    "gc": CollectTask,
    "replicate": ReplicateTask,
}


_SET_BASE = "record the version's base with `adaptry base bind REF BASE` and submit the job again"
"""A job takes the base from the version's record, so it has no field for it."""


def argument_names(kind: str) -> ArgumentNames:
    """The fields of a kind of job, for sentences that name options of the command line."""
    fields = TASKS[kind].model_fields if kind in TASKS else {}
    flags = {name: field.annotation is bool for name, field in fields.items()}
    return ArgumentNames(flags, {"for": "runtime"}, quote="", true="true", set_base=_SET_BASE)


def combine_methods() -> tuple[MethodDescription, ...]:
    """The methods of a combination with their parameters."""
    from adaptry.compute.combining import COMBINE_METHODS

    return tuple(
        MethodDescription(
            name=method.name,
            title=method.title,
            inputs=method.inputs,
            uses_weights=method.uses_weights,
            parameters={
                name: ParameterChoice(one.default, one.description, one.low, one.high, one.choices)
                for name, one in method.parameters.items()
            },
        )
        for method in COMBINE_METHODS.values()
    )


def parse_task(kind: str, fields: Mapping[str, Any]) -> JobTask:
    """The task of an order. Raises `Invalid`. (`Any`: JSON.)"""
    model = TASKS.get(kind)
    if model is None:
        raise Invalid(f"unknown kind of job {kind[:80]!a} (one of: {', '.join(TASKS)})")
    try:
        return model.model_validate(dict(fields))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        if not where:  # an error of the whole task, and not of a field
            raise Invalid(f"{kind}: {reason_of(error)[:500]}") from None
        takes = ", ".join(model.model_fields)
        problem = " is missing" if first["type"] == "missing" else f": {reason_of(error)[:500]}"
        raise Invalid(f"{where[:200]} of {kind}{problem} (its fields are {takes})") from None
