"""Values that do not use pydantic have the same JSON, validation and errors as pydantic's."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some
from pydantic import TypeAdapter, ValidationError

from adaptry.adapters.spec import ExtraWeight, ModuleSpec, Spec
from adaptry.core.digest import Digest
from adaptry.core.errors import AdaptryError
from adaptry.core.manifest import MAX_FILE, BaseClaim, FileEntry, Manifest
from adaptry.core.report import CheckReport, Finding
from adaptry.core.value import FrozenValue, to_json
from adaptry.registry.commit_info import CommitNote
from adaptry.registry.records import AdapterEdit, PushOptions

TEXTS = some.text(some.characters(exclude_categories=["Cs"]), max_size=12)
DIGESTS = some.binary(max_size=4).map(Digest.of)
NUMBERS = some.floats() | some.integers(-(2**40), 2**40)
WHOLE = some.integers(0, 2**60)
ROLES = some.dictionaries(TEXTS, TEXTS, max_size=3)


def tuples(items: some.SearchStrategy[Any]) -> some.SearchStrategy[tuple[Any, ...]]:
    """(`Any`: of anything.)"""
    return some.lists(items, max_size=3).map(tuple)


MODULES = some.builds(
    ModuleSpec,
    path=TEXTS,
    kind=some.sampled_from(["linear", "conv", "block"]),
    rank=WHOLE,
    alpha=NUMBERS,
    scale=NUMBERS,
    fan_in=WHOLE,
    fan_out=WHOLE,
    tensors=ROLES,
    parameter=some.none() | TEXTS,
)
EXTRAS = some.builds(ExtraWeight, target=TEXTS, kind=some.just("bias"), tensor=TEXTS, shape=tuples(WHOLE))
SPECS = some.builds(
    Spec,
    method=TEXTS,
    modules=tuples(MODULES),
    extras=tuples(EXTRAS),
    shared=ROLES,
    virtual_tokens=some.none() | WHOLE,
    unclaimed=tuples(TEXTS),
    base_name=some.none() | TEXTS,
)
FINDINGS = some.builds(
    Finding,
    code=TEXTS,
    severity=some.sampled_from(["blocks", "warns", "notes"]),
    reason=TEXTS,
    remedy=TEXTS,
    modules=tuples(TEXTS),
)
REPORTS = some.builds(CheckReport, findings=tuples(FINDINGS), base=some.none() | TEXTS)


@given(SPECS | REPORTS)
def test_json_is_byte_for_byte_that_of_pydantic(value: FrozenValue) -> None:
    expected = TypeAdapter(type(value)).dump_json(value)

    assert to_json(value).encode() == expected == value.model_dump_json().encode()


@given(
    SPECS.filter(lambda spec: "NaN" not in repr(spec) and "nan" not in repr(spec) and "inf" not in repr(spec))
)
def test_a_value_is_read_again_as_it_was(spec: Spec) -> None:
    assert Spec.model_validate_json(to_json(spec)) == spec
    assert Spec.model_validate(spec.model_dump()) == spec


PATHS = some.sampled_from(["adapter_config.json", "a.safetensors", "README.md", "../x", "readme.md", ""])
FILES = some.dictionaries(PATHS, some.tuples(some.integers(-1, MAX_FILE + 1), DIGESTS), max_size=3)
RECIPES = some.dictionaries(TEXTS, some.none() | some.booleans() | some.integers() | TEXTS, min_size=1)


@given(
    FILES,
    some.none() | some.builds(BaseClaim, id=some.none() | DIGESTS, name=some.none() | TEXTS),
    tuples(DIGESTS),
    some.none() | RECIPES,
    some.dictionaries(TEXTS, TEXTS, max_size=2),
)
def test_the_bytes_of_a_manifest_are_those_of_its_fields(
    files: dict[str, tuple[int, Digest]], base: BaseClaim | None, parents: Any, recipe: Any, provenance: Any
) -> None:
    """(`Any`: JSON.)"""
    try:
        made = Manifest.of(files, base=base, parents=parents, recipe=recipe, provenance=provenance)
    except (AdaptryError, ValidationError):
        return
    document = made.model_dump(mode="json", by_alias=True)
    kept = {key: value for key, value in document.items() if value not in (None, [], {})}
    if made.base:
        kept["base"] = {key: value for key, value in document["base"].items() if value is not None}
    text = json.dumps(kept, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert made.to_bytes() == text.encode()
    assert Manifest.parse(made.to_bytes()) == made == Manifest.model_validate(document)


ENTRY = {"path": "a", "size": 1, "sha256": f"sha256:{'0' * 64}"}


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"files": [{**ENTRY, "size": "1"}]}, "not in canonical form"),
        ({"files": [{**ENTRY, "size": -1}]}, "files.0.size: Input should be greater than or equal to 0"),
        ({"files": [{**ENTRY, "more": 1}]}, "files.0.more: Extra inputs are not permitted"),
        ({"files": [{"path": "a"}]}, "files.0.size: Field required"),
        ({"files": "abc"}, "files: Input should be a valid tuple"),
        ({"when": "today"}, "when: Extra inputs are not permitted"),
        ({"base": {"name": "x" * 513}}, "base.name: String should have at most 512 characters"),
        ({"parents": ["sha256:0"]}, "parents.0: not a digest"),
        ({"provenance": {"a": 1}}, "provenance.a: Input should be a valid string"),
        ({"files": [{**ENTRY, "path": "b"}, ENTRY]}, "not a manifest: files must be sorted by path"),
    ],
)
def test_a_manifest_is_refused_with_the_reason_that_pydantic_gives(
    fields: dict[str, Any], reason: str
) -> None:
    """(`Any`: JSON.)"""
    data = json.dumps({"schema": 1, **fields}, sort_keys=True, separators=(",", ":")).encode()

    with pytest.raises(AdaptryError) as refused:
        Manifest.parse(data)

    assert reason in refused.value.message


@pytest.mark.parametrize(
    "make",
    [
        lambda: PushOptions(metrics={"no spaces": 1.0}),
        lambda: PushOptions(force_reason="x"),
        lambda: PushOptions(number=0),
        lambda: AdapterEdit(tags=("a b",)),
        lambda: AdapterEdit(description="x" * 4097),
        lambda: CommitNote(title=""),
        lambda: CommitNote(title="x" * 513),
        lambda: FileEntry(path="a", size=MAX_FILE + 1, sha256=Digest.of(b"")),
        lambda: BaseClaim(name="x" * 513),
        lambda: Manifest(parents=(Digest.of(b""),) * 65),
    ],
)
def test_a_constructor_refuses_what_is_beyond_a_limit(make: Any) -> None:
    """(`Any`: a call.)"""
    with pytest.raises(ValidationError):
        make()


def test_a_constructor_converts_what_pydantic_converts() -> None:
    assert repr(PushOptions(metrics={"loss": 1}).metrics) == "{'loss': 1.0}"
    assert AdapterEdit(tags=["a"]).tags == ("a",)  # type: ignore[arg-type]
    digest = Digest.of(b"")
    assert FileEntry(path="a", size=1, sha256=str(digest)).sha256 == digest  # type: ignore[arg-type]


def test_a_value_cannot_be_changed_and_a_copy_can_differ() -> None:
    finding = Finding(code="a", severity="notes", reason="b", remedy="c")

    with pytest.raises(FrozenInstanceError):
        finding.code = "b"  # type: ignore[misc]

    assert finding.model_copy(update={"code": "b"}).code == "b"
    assert finding.code == "a"
    assert hash(finding) == hash(finding.model_copy())


def test_values_of_a_push_are_made_without_pydantic() -> None:
    script = """
import sys
from adaptry.adapters.spec import ModuleSpec, Spec
from adaptry.core.digest import Digest
from adaptry.core.manifest import BaseClaim, Manifest
from adaptry.core.report import CheckReport, Finding
from adaptry.core.value import to_json
from adaptry.registry.commit_info import CommitNote
from adaptry.registry.records import AdapterEdit, PushOptions, PushResult, VersionInfo

files = {"a.safetensors": (3, Digest.of(b"abc"))}
manifest = Manifest.of(files, base=BaseClaim(name="org/model"), parents=(Digest.of(b""),))
assert Manifest.parse(manifest.to_bytes()) == manifest
numbers = {"rank": 8, "alpha": 16, "scale": 0.5, "fan_in": 4, "fan_out": 4}
to_json(Spec(method="lora", modules=(ModuleSpec(path="q", kind="linear", tensors={"A": "a"}, **numbers),)))
to_json(CheckReport(findings=(Finding(code="a", severity="notes", reason="b", remedy="c"),)))
AdapterEdit(), CommitNote(title="Version 1"), PushOptions(alias="prod").model_copy(update={"reuse": True})
assert "pydantic" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True)
