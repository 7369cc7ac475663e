"""What can be asked of a job: a frozen payload for each kind, in one table.

A payload names things of the registry and never a place on a machine: it is carried out elsewhere, by someone who can read
more than who asked. Carrying it out is `doing`'s; nothing here computes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from adaptry.errors import Invalid, InvalidRef
from adaptry.refs import AdapterName, Ref, is_folder, parse_base_name, split_weight

if TYPE_CHECKING:
    from adaptry.combining.recipe import CombineRecipe
    from adaptry.merging.recipe import Input, Recipe

Dtype = Literal["F32", "F16", "BF16"]


def _ref(text: str) -> str:
    """A ref as it was written. Raises `ValueError` for a folder, too."""
    if is_folder(text):
        raise ValueError(f"a job takes adapters of the registry, not folders: push {text[:200]!r} first")
    try:
        Ref.parse(text)
    except InvalidRef as error:
        raise ValueError(error.message) from None
    return text


def _weighted(text: str) -> str:
    try:
        _ref(split_weight(text)[0])
    except Invalid as error:
        raise ValueError(error.message) from None
    return text


def _key(text: str) -> str:
    if is_folder(text):
        raise ValueError(
            f"a job takes a base of the registry, not a folder: {text[:200]!r} has to be added first"
        )
    return text


def _base_name(text: str) -> str:
    try:
        parse_base_name(text)
    except InvalidRef as error:
        raise ValueError(error.message) from None
    return text


def _runtime(text: str) -> str:
    from adaptry.checks.runtimes import parse_runtime

    try:
        return str(parse_runtime(text))
    except Invalid as error:
        raise ValueError(error.message) from None


RefText = Annotated[str, Field(max_length=512), AfterValidator(_ref)]
Weighted = Annotated[str, Field(max_length=512), AfterValidator(_weighted)]
BaseKey = Annotated[str, Field(min_length=1, max_length=512), AfterValidator(_key)]
RuntimeText = Annotated[str, Field(max_length=1024), AfterValidator(_runtime)]
BaseName = Annotated[str, Field(max_length=512), AfterValidator(_base_name)]


class Task(BaseModel):
    """One thing to do. `about` is its line of help.

    What of it makes no sense is refused when it is asked for, and not hours later by a runner: `check` adds to the fields
    what they mean together.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    about: ClassVar[str]

    @property
    def namespace(self) -> str:
        """Whose job it is: of who may write there. Empty where it changes what every namespace shares."""
        return ""

    @property
    def refs(self) -> tuple[str, ...]:
        """The versions it reads, as they were written."""
        return ()

    def check(self) -> None:
        """Raises `Invalid`, `ValidationError` where the fields together make no sense that any runner could find."""

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        try:
            self.check()
        except Invalid as error:
            raise ValueError(error.message) from None
        except ValidationError as error:
            raise ValueError(_reason(error)) from None
        return self


class Merge(Task):
    """`adaptry merge`, whose result is stored as a base under the name `to`, beside the one it was made from."""

    about: ClassVar[str] = (
        "Merge adapters into a base, one part for each file of weights; the result is a stored base."
    )
    base: BaseKey
    inputs: tuple[Weighted, ...] = Field(min_length=1, max_length=64)
    to: BaseName
    method: str = Field(default="linear", max_length=64)
    parameters: dict[str, Any] = {}  # checked against the method's table
    seed: int = Field(default=0, ge=0, lt=1 << 63)
    dtype: Dtype | None = None
    max_shard_size: int | None = Field(default=None, ge=1 << 20)
    other_base: bool = False
    resize_vocab: bool = False
    base_copy: Literal["original", "dequantised"] | None = None

    @property
    def refs(self) -> tuple[str, ...]:
        return _sources(self.inputs)

    @property
    def recipe(self) -> Recipe:
        """What `adaptry merge` would be asked. Raises `ValidationError` where it makes no sense."""
        from adaptry.merging.recipe import Recipe

        return Recipe(inputs=_inputs(self.inputs), **self.model_dump(exclude={"inputs", "to"}))

    def check(self) -> None:
        _check_method(self)


class Combine(Task):
    """`adaptry combine`: one adapter out of several, as a version of `to`."""

    about: ClassVar[str] = "Combine adapters of one base into one adapter."
    inputs: tuple[Weighted, ...] = Field(min_length=1, max_length=64)
    to: AdapterName
    method: str = Field(default="linear", max_length=64)
    parameters: dict[str, Any] = {}  # checked against the method's table
    rank: int | None = Field(default=None, ge=1, le=1 << 16)
    energy: float | None = Field(default=None, gt=0, le=1)
    uniform: bool = False
    seed: int = Field(default=0, ge=0, lt=1 << 63)
    dtype: Dtype = "F32"
    other_base: bool = False

    @property
    def namespace(self) -> str:
        return self.to.namespace

    @property
    def refs(self) -> tuple[str, ...]:
        return _sources(self.inputs)

    @property
    def recipe(self) -> CombineRecipe:
        """What `adaptry combine` would be asked. Raises `ValidationError` where it makes no sense."""
        from adaptry.combining.recipe import CombineRecipe

        return CombineRecipe(inputs=_inputs(self.inputs), **self.model_dump(exclude={"inputs", "to"}))

    def check(self) -> None:
        _check_method(self)


class Convert(Task):
    """`adaptry convert`: an adapter of any method as a plain LoRA, as a version of `to`."""

    about: ClassVar[str] = "Make a plain LoRA of an adapter of any method."
    source: RefText
    to: AdapterName
    rank: int | None = Field(default=None, ge=1, le=1 << 16)
    energy: float | None = Field(default=None, gt=0, le=1)
    uniform: bool = False
    drop_bias: bool = False

    @property
    def namespace(self) -> str:
        return self.to.namespace

    @property
    def refs(self) -> tuple[str, ...]:
        return (self.source,)

    def check(self) -> None:
        _check_ranks(self)


class Export(Task):
    """`adaptry export --for`: an adapter repaired for an engine, as a version of `to`."""

    about: ClassVar[str] = (
        "Repair an adapter for an engine that would serve it otherwise than it was trained."
    )
    source: RefText
    runtime: RuntimeText
    to: AdapterName
    rank: int | None = Field(default=None, ge=1, le=1 << 16)
    energy: float | None = Field(default=None, gt=0, le=1)
    exact: bool = False

    @property
    def namespace(self) -> str:
        return self.to.namespace

    @property
    def refs(self) -> tuple[str, ...]:
        return (self.source,)

    def check(self) -> None:
        _check_ranks(self)


class FingerprintBase(Task):
    """`adaptry base add --full`, of a base that is known: digests over every weight, as evidence."""

    about: ClassVar[str] = "Read every weight of a base and keep its full digests as evidence."
    base: BaseKey


class Verify(Task):
    """Whether everything that is stored is what was stored."""

    about: ClassVar[str] = "Look for rows and files that are not as they were stored."
    read_bytes: bool = True


class Collect(Task):
    """`adaptry gc`: what nobody needs is marked, and goes when it was marked `grace_hours` ago."""

    about: ClassVar[str] = "Delete files that no version needs any more."
    grace_hours: float = Field(default=24, ge=0, le=24 * 3650)
    dry_run: bool = False


class Replicate(Task):
    """`adaptry copy` of a version to another registry, at one of the addresses that the runner was told of."""

    about: ClassVar[str] = "Copy a version to another registry, by the name its runners know it by."
    ref: RefText
    remote: str = Field(min_length=1, max_length=64)
    to: AdapterName

    @property
    def refs(self) -> tuple[str, ...]:
        return (self.ref,)


TASKS: Mapping[str, type[Task]] = {
    "merge": Merge,
    "combine": Combine,
    "convert": Convert,
    "export": Export,
    "fingerprint": FingerprintBase,
    "verify": Verify,
    "gc": Collect,
    "replicate": Replicate,
}


def parse_task(kind: str, fields: Mapping[str, Any]) -> Task:
    """The task of an order. Raises `Invalid`. (`Any`: JSON.)"""
    model = TASKS.get(kind)
    if model is None:
        raise Invalid(f"no kind of job is called {kind[:80]!a}; there are {', '.join(TASKS)}")
    try:
        return model.model_validate(dict(fields))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        if not where:  # of the whole: no field is missing or misspelt
            raise Invalid(f"{kind}: {_reason(error)[:500]}") from None
        takes = ", ".join(model.model_fields)
        raise Invalid(f"{kind}: {where[:200]}: {_reason(error)[:500]} (its fields are {takes})") from None


def _sources(weighted: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(split_weight(text)[0] for text in weighted)


def _inputs(weighted: tuple[str, ...]) -> tuple[Input, ...]:
    from adaptry.merging.recipe import Input

    return tuple(Input(source=source, weight=weight) for source, weight in map(split_weight, weighted))


def _check_method(task: Merge | Combine) -> None:
    from adaptry.combining import combination_named

    combination_named(task.recipe.method).checked(task.parameters)


def _check_ranks(task: Convert | Export) -> None:
    if task.rank is not None and task.energy is not None:
        raise Invalid("say rank or energy, not both: each decides the rank")


def _reason(error: ValidationError) -> str:
    said = error.errors(include_url=False, include_input=False)[0]["msg"]
    return str(said).removeprefix("Value error, ")
