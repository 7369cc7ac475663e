"""Lazy dataclasses behave like those of the standard library, which is the reference here."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
import threading
import typing
from dataclasses import InitVar, field
from typing import Any

import pytest
from pydantic import TypeAdapter

from adaptry.core import lazy_dataclass

OPTIONS: list[dict[str, bool]] = [
    {},
    {"frozen": True},
    {"slots": True},
    {"frozen": True, "slots": True},
    {"frozen": True, "slots": True, "order": True},
    {"frozen": True, "kw_only": True},
    {"eq": False},
    {"frozen": True, "repr": False},
]


def point(decorate: Any, **options: bool) -> Any:
    """A class with every kind of field that our code uses, decorated by `decorate`."""

    @decorate(**options)
    class Point:
        """A point."""

        left: int
        top: float = 0.5
        names: list[str] = field(default_factory=list)
        secret: str = field(default="hidden", repr=False)
        note: str = field(default="", compare=False)

        def moved(self) -> Point:
            return dataclasses.replace(self, left=self.left + 1)

    return Point


@pytest.fixture(params=OPTIONS, ids=str)
def pair(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    return point(lazy_dataclass.dataclass, **request.param), point(dataclasses.dataclass, **request.param)


def outcome(work: Any) -> object:
    """The result of calling `work`, or the type and message of its error."""
    try:
        return work()
    except (TypeError, AttributeError) as error:
        return type(error), str(error)


VALUES: list[dict[str, object]] = [
    {"left": 1},
    {"left": 1, "top": float("nan")},
    {"left": 2, "names": ["a"], "note": "other"},
    {"left": 2, "names": ["a"], "secret": "s"},
    {"left": 2, "unknown": 1},
    {},
]


@pytest.mark.parametrize("given", VALUES, ids=str)
def test_values_have_the_same_fields_and_repr(pair: tuple[Any, Any], given: dict[str, Any]) -> None:
    ours, theirs = (
        outcome(lambda kind=kind: (dataclasses.asdict(kind(**given)), dataclasses.astuple(kind(**given))))
        for kind in pair
    )
    assert str(ours) == str(theirs)
    for made in (lambda kind: repr(kind(**given)), lambda kind: kind(**given).moved().left):
        shown = [outcome(lambda kind=kind, made=made: made(kind)) for kind in pair]
        if "object at 0x" not in str(shown[1]):  # the default repr, with an address
            assert shown[0] == shown[1]


def test_comparison_order_and_hash_are_the_same(pair: tuple[Any, Any]) -> None:
    results = []
    for kind in pair:
        values = [kind(left=1), kind(left=1), kind(left=1, note="x"), kind(left=1, secret="y"), kind(left=3)]
        plain = [
            kind(left=1, names=()),
            kind(left=1, names=(), note="x"),
            kind(left=1, names=("a",)),
        ]  # hashable
        results.append(
            [
                [[one == other for other in [*values, 1, None]] for one in values],
                [[outcome(lambda a=a, b=b: a < b) is True for b in values] for a in values],
                [[outcome(lambda a=a, b=b: a >= b) is True for b in values] for a in values],
                [outcome(lambda one=one, first=plain[0]: len({one, first})) for one in plain],
                outcome(lambda one=values[0]: hash(one) and None),
                kind.__hash__ is None,
            ]
        )

    assert results[0] == results[1]


def test_values_are_copied_and_pickled(pair: tuple[Any, Any]) -> None:
    kind = pair[0]
    globals()["Point"], kind.__qualname__ = kind, "Point"
    value = kind(left=1, names=["a"])

    for other in (copy.copy(value), copy.deepcopy(value), pickle.loads(pickle.dumps(value))):
        assert dataclasses.asdict(other) == dataclasses.asdict(value)


def test_frozen_values_refuse_assignments(pair: tuple[Any, Any]) -> None:
    if not pair[0].__dataclass_params__.frozen:
        return
    for kind in pair:
        value = kind(left=1)
        with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign to field 'left'"):
            value.left = 2
        with pytest.raises(dataclasses.FrozenInstanceError, match="cannot delete field 'left'"):
            del value.left


def test_signature_and_metadata_of_a_class_are_the_same(pair: tuple[Any, Any]) -> None:
    ours, theirs = (
        {
            "signature": str(inspect.signature(kind)),
            "fields": [
                (each.name, each.type, each.default, each.kw_only) for each in dataclasses.fields(kind)
            ],
            "params": repr(kind.__dataclass_params__),
            "match": kind.__match_args__,
            "hints": typing.get_type_hints(kind.__init__),
            "slots": getattr(kind, "__slots__", None),
            "schema": TypeAdapter(kind).json_schema(),
            "read": dataclasses.asdict(TypeAdapter(kind).validate_python({"left": "3", "names": ("a",)})),
        }
        for kind in pair
    )

    assert ours == theirs


def test_an_unused_class_compiles_nothing() -> None:
    kind = point(lazy_dataclass.dataclass, frozen=True)

    assert not inspect.isfunction(vars(kind)["__init__"])
    kind(left=1)
    assert inspect.isfunction(vars(kind)["__init__"])


def test_threads_may_create_the_first_values_concurrently() -> None:
    kind, made, start = point(lazy_dataclass.dataclass, frozen=True), [], threading.Barrier(8)

    def make() -> None:
        start.wait()
        made.append(kind(left=1))

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert made == [kind(left=1)] * 8


def test_own_methods_and_post_init_are_kept() -> None:
    @lazy_dataclass.dataclass(frozen=True)
    class Even:  # noqa: PLW1641  # its hash is generated
        number: int

        def __post_init__(self) -> None:
            if self.number % 2:
                raise ValueError("odd")

        def __repr__(self) -> str:
            return "even"

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Even)

    assert repr(Even(2)) == "even"
    assert Even(2) == Even(4)
    assert len({Even(2), Even(2)}) == 1
    with pytest.raises(ValueError, match="odd"):
        Even(1)


def test_a_derived_dataclass_has_the_fields_of_both() -> None:
    @lazy_dataclass.dataclass(frozen=True)
    class Place:
        name: str

    @lazy_dataclass.dataclass(frozen=True)
    class City(Place):
        people: int = 0

    class Village(Place):
        pass

    village = Village("b")
    village.mayor = "c"  # type: ignore[attr-defined]  # not a field of the frozen class

    assert City("a", 3) == City(name="a", people=3) != Place("a")
    assert Village("b") == village
    with pytest.raises(dataclasses.FrozenInstanceError):
        village.name = "d"  # type: ignore[misc]  # the assignment under test


def test_fields_that_are_not_supported_are_refused() -> None:
    with pytest.raises(TypeError, match="only the standard library supports"):

        @lazy_dataclass.dataclass
        class WithArgument:
            name: str
            secret: InitVar[str]

    with pytest.raises(TypeError, match="only the standard library supports"):

        @lazy_dataclass.dataclass
        class WithComputed:
            name: str
            size: int = field(init=False, default=0)


def test_repr_of_a_value_that_contains_itself_is_finite() -> None:
    value = point(lazy_dataclass.dataclass)(left=1)
    value.names.append(value)

    assert repr(value).endswith("names=[...], note='')")
