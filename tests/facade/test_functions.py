"""Every function of `import adaptry`, on an embedded registry and on a server, with strings and values
(on the server, they are slow)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.facade.conftest import MakeLora

import adaptry
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.core.credentials import save_token
from adaptry.core.errors import by_code
from adaptry.operations.base_registry import register_base
from adaptry_api.testing import Server

WEIGHTS = "adapter_model.safetensors"


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def delta(folder: Path, module: str = "model.layers.0.self_attn.q_proj") -> torch.Tensor:
    """The update of one module, float64 [out, in]: scale · B·A."""
    tensors = load_file(folder / WEIGHTS)
    a, b = (tensors[f"base_model.model.{module}.lora_{side}.weight"].double() for side in "AB")
    config = adaptry.open_dir(folder).config.fields
    return config["lora_alpha"] / config["r"] * b @ a


def test_a_push_takes_a_folder_a_name_and_options(
    registry: adaptry.Registry, name: str, lora: MakeLora, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = lora()
    monkeypatch.chdir(folder.parent)
    pushed = adaptry.push(
        registry,
        folder.name,
        name,
        metrics={"accuracy": 0.91},
        alias="staging",
        description="calm",
        tags=["a"],
    )
    assert pushed.is_new and pushed.version.label == f"{name}@1"
    assert registry.version(f"{name}@staging").metrics == {"accuracy": 0.91}
    info = registry.adapters.get(pushed.version.name)
    assert (info.description, info.tags) == ("calm", ("a",))
    assert not adaptry.push(registry, adaptry.open_dir(folder), name).is_new


def test_a_push_records_parents_and_provenance(registry: adaptry.Registry, name: str, lora: MakeLora) -> None:
    first = adaptry.push(registry, lora(1), name)
    second = adaptry.push(registry, lora(2), name, parents=[f"{name}@1"], provenance={"commit": "9f2c1e"})
    manifest = registry.versions.detail(second.version.revision_ref).manifest
    assert (manifest.parents, manifest.provenance) == ((first.version.digest,), {"commit": "9f2c1e"})


def test_a_pull_returns_the_pushed_files(
    registry: adaptry.Registry, name: str, lora: MakeLora, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = lora()
    pushed = adaptry.push(registry, folder, name)
    assert adaptry.pull(registry, name, tmp_path / "there").label == f"{name}@1"
    assert files(tmp_path / "there") == files(folder)
    monkeypatch.chdir(tmp_path)
    adaptry.pull(registry, pushed)
    assert files(tmp_path / name.partition("/")[2]) == files(folder)


def test_load_gives_the_tensors_of_a_version(registry: adaptry.Registry, name: str, lora: MakeLora) -> None:
    folder = lora()
    pushed = adaptry.push(registry, folder, name)
    expected = load_file(folder / WEIGHTS)
    for source in (f"{name}@1", pushed, pushed.version):
        tensors = adaptry.load(source, registry=registry)
        assert all(torch.equal(tensors[key], value) for key, value in expected.items())


def test_a_search_is_a_sequence_of_versions(registry: adaptry.Registry, name: str, lora: MakeLora) -> None:
    for seed in (1, 2, 3):
        adaptry.push(registry, lora(seed), name, metrics={"accuracy": seed / 10})
    found = adaptry.search(registry, f"name:{name} metric.accuracy>=0.2")
    assert [version.label for version in found] == [f"{name}@3", f"{name}@2"]
    assert (len(found), found.has_more, found[0].number, len(found[1:])) == (2, False, 3, 1)
    limited = adaptry.search(registry, f"name:{name}", limit=2)
    assert (len(limited), limited.has_more) == (2, True)


def test_a_check_shows_blocking_findings_and_engine_verdicts(
    registry: adaptry.Registry, name: str, lora: MakeLora, base: Path
) -> None:
    folder = lora(base_name="org/unknown")
    adaptry.push(registry, folder, name)
    for source in (f"{name}@1", folder, adaptry.open_dir(folder)):
        found = adaptry.check(source, base=base, engines="vllm@0.33,max_lora_rank=8", registry=registry)
        assert not found.is_blocked and found.is_served_as_trained
    wide = adaptry.check(lora(hidden=32), base=base, engines=["vllm@0.33,max_lora_rank=1"], registry=registry)
    assert wide.is_blocked and not wide.is_served_as_trained
    assert "shape_mismatch" in {finding.code for finding in wide.findings}


def test_a_comparison_has_differences_and_the_distance_of_updates(
    registry: adaptry.Registry, name: str, lora: MakeLora
) -> None:
    first, second = lora(1, rank=4), lora(2, rank=8)
    adaptry.push(registry, first, name)
    found = adaptry.compare(f"{name}@1", second, weights=True, registry=registry)
    assert {each.what for each in found.differences} >= {"config r", "q_proj"}
    assert found.distance is not None and found.distance.cosine is not None
    assert abs(found.distance.cosine) < 0.5  # random updates
    assert adaptry.compare(f"{name}@1", first, registry=registry).differences == ()


def test_a_merge_whose_updates_cancel_is_refused(lora: MakeLora, base: Path, tmp_path: Path) -> None:
    inputs = [(lora(1), 1.0), (lora(1), -1.0)]

    for target in (None, tmp_path / "merged"):
        with pytest.raises(adaptry.errors.CheckFailed, match="would change nothing"):
            adaptry.merge(inputs, base=base, to=target)


def test_a_merge_writes_the_sum_or_gives_the_plan(
    registry: adaptry.Registry, name: str, lora: MakeLora, base: Path, tmp_path: Path
) -> None:
    first, second = lora(1), lora(2)
    adaptry.push(registry, first, name)
    plan = adaptry.merge({f"{name}@1": 0.5, str(second): 2}, base=base, registry=registry)
    assert plan.adapted_count == 4
    inputs = [(f"{name}@1", 0.5), (second, 2.0)]
    made = adaptry.merge(inputs, base=base, to=tmp_path / "merged", kernel="torch", registry=registry)
    key = "model.layers.0.self_attn.q_proj.weight"
    before, after = (load_file(each / "model.safetensors")[key].double() for each in (base, made.folder))
    torch.testing.assert_close(after - before, 0.5 * delta(first) + 2 * delta(second), atol=1e-8, rtol=0)


def test_combine_and_stack_make_versions_that_name_their_parents(
    registry: adaptry.Registry, name: str, lora: MakeLora
) -> None:
    folders = lora(1), lora(2)
    for folder in folders:
        adaptry.push(registry, folder, name)
    inputs = {f"{name}@1": 1.0, f"{name}@2": 0.5}
    plan = adaptry.combine(inputs, method="ties", parameters={"density": 0.5}, rank=2, registry=registry)
    assert [site.expected_rank for site in plan.sites] == [2, 2, 2, 2]
    combined = adaptry.combine(
        inputs,
        method="ties",
        parameters={"density": 0.5},
        rank=2,
        to=f"{name}-ties",
        metrics={"accuracy": 0.5},
        registry=registry,
    )
    assert combined.pushed is not None and combined.pushed.version.metrics["accuracy"] == 0.5
    stacked = adaptry.stack(inputs, to=f"{name}-both", registry=registry)
    tree = adaptry.lineage(registry, f"{name}-both@1")
    assert [each.refs for each in tree.relatives] == [(f"{name}@1",), (f"{name}@2",)]
    below = adaptry.lineage(registry, f"{name}@1", descendants=True)
    assert {each.refs for each in below.relatives} == {(f"{name}-ties@1",), (f"{name}-both@1",)}
    assert stacked.outcome.kept is None


def test_a_stack_in_a_folder_is_exactly_the_weighted_sum(
    registry: adaptry.Registry, lora: MakeLora, tmp_path: Path
) -> None:
    first, second = lora(1), lora(2)
    made = adaptry.stack([(first, 1.0), (second, 0.5)], to=tmp_path / "both", registry=registry)
    assert made.folder == tmp_path / "both"
    torch.testing.assert_close(delta(made.folder), delta(first) + 0.5 * delta(second), atol=1e-9, rtol=0)


def test_convert_makes_a_plain_lora(registry: adaptry.Registry, name: str, lora: MakeLora) -> None:
    adaptry.push(registry, lora(config={"use_rslora": True}), name)
    made = adaptry.convert(f"{name}@1", to=f"{name}-plain", rank=2, registry=registry)
    assert made.pushed is not None and made.pushed.version.rank == 2
    assert 0 < made.outcome.error < 1


def test_resize_shows_what_ranks_keep_and_makes_the_chosen_one(
    registry: adaptry.Registry, name: str, lora: MakeLora
) -> None:
    adaptry.push(registry, lora(), name)
    plan = adaptry.resize(f"{name}@1", registry=registry)
    assert [point.rank for point in plan.points] == [1, 2, 4]
    assert plan.points[-1].kept == pytest.approx(1)
    made = adaptry.resize(f"{name}@1", allowed=[2, 8], energy=0.01, to=f"{name}-small", registry=registry)
    assert made.pushed is not None and made.pushed.version.rank == 2


def test_export_plans_repairs_and_writes_them(
    registry: adaptry.Registry, name: str, lora: MakeLora, tmp_path: Path
) -> None:
    adaptry.push(registry, lora(rank=16), name)
    plan = adaptry.export(f"{name}@1", engine="vllm@0.33,max_lora_rank=8", rank=8, registry=registry)
    assert [step.repair.name for step in plan.steps] != []
    written = adaptry.export(
        f"{name}@1",
        engine="vllm@0.33,max_lora_rank=8",
        to=tmp_path / "vllm",
        rank=8,
        max_error=1.0,
        registry=registry,
    )
    assert written.folder and adaptry.open_dir(written.folder).spec.rank == 8
    version = adaptry.export(
        f"{name}@1",
        engine="vllm@0.33,max_lora_rank=8",
        to=f"{name}-vllm",
        rank=8,
        max_error=1.0,
        registry=registry,
    )
    assert version.pushed is not None and version.pushed.version.rank == 8


def test_aliases_move_and_move_back(registry: adaptry.Registry, name: str, lora: MakeLora) -> None:
    first = adaptry.push(registry, lora(1), name)
    adaptry.push(registry, lora(2), name)
    adaptry.promote(registry, first)
    moved = adaptry.promote(registry, f"{name}@2", expect=1)
    assert (moved.was, moved.alias.number, moved.alias.alias) == (1, 2, "prod")
    assert adaptry.rollback(registry, name).alias.number == 1
    assert adaptry.rollback(registry, f"{name}@prod").alias.number == 2
    with pytest.raises(adaptry.errors.Conflict, match="look again"):
        adaptry.promote(registry, f"{name}@2", expect=1)


def test_a_revoked_versions_files_are_withheld_from_everyone(
    registry: adaptry.Registry, name: str, lora: MakeLora, tmp_path: Path
) -> None:
    adaptry.push(registry, lora(1), name)
    second = adaptry.push(registry, lora(2), name)
    changed = adaptry.revoke(registry, f"{name}@1", reason="leaks names", successor=second)
    assert (changed.was, changed.version.state) == ("active", "revoked")
    with pytest.raises(adaptry.errors.Withdrawn, match="leaks names"):
        adaptry.pull(registry, f"{name}@1", tmp_path / "there")
    with pytest.raises(adaptry.errors.Withdrawn, match="leaks names"):
        adaptry.stack([f"{name}@1"], to=tmp_path / "stacked", registry=registry)


def test_a_registrys_location_can_be_passed_instead_of_a_registry(
    where: str, name: str, lora: MakeLora, tmp_path: Path
) -> None:
    """A folder without a registry becomes one at the first push."""
    adaptry.push(where, lora(), name, alias="staging")
    adaptry.promote(where, f"{name}@staging")
    assert [version.label for version in adaptry.search(where, f"name:{name}")] == [f"{name}@1"]
    assert adaptry.lineage(where, name).refs == (f"{name}@1",)
    assert adaptry.pull(where, f"{name}@prod", tmp_path / "there").label == f"{name}@1"
    assert adaptry.resize(f"{name}@1", registry=where).label == f"{name}@1"
    assert len(adaptry.load(f"{name}@1", registry=where)) == 8
    adaptry.revoke(where, f"{name}@1", reason="no longer needed")


def test_a_version_on_its_registered_base_is_checked_against_it(
    registry: adaptry.Registry, name: str, lora: MakeLora, base: Path
) -> None:
    register_base(registry, open_checkpoint(base), ("org/tiny",))
    adaptry.push(registry, lora(base_name="org/tiny"), name)
    assert adaptry.check(f"{name}@1", registry=registry).base == "org/tiny"


CALLS: list[tuple[str, Callable[[], object]]] = [
    (
        r"pass a registry as the result of adaptry.connect\(\)",
        lambda: adaptry.push(3, "out", "acme/x"),  # type: ignore[arg-type]
    ),
    (r"write ./somewhere for a folder", lambda: adaptry.search("somewhere")),
    (r"'tone' has no namespace", lambda: adaptry.push("./registry", "out", "tone")),
    (r"no adapter", lambda: adaptry.push("./registry", "out", "acme/x")),
    (r"not True or False", lambda: adaptry.push("./r", "out", "acme/x", metrics={"passed": True})),
    (r"metrics must be at most 64 numbers", lambda: adaptry.push("./r", "out", "acme/x", metrics={"a b": 1})),
    (r"force_reason must have 3", lambda: adaptry.push("./r", "out", "acme/x", force_reason="x")),
    (r"tags must be at most", lambda: adaptry.push("./r", "out", "acme/x", tags=["two words"])),
    (r"a ref .* or a folder .*, not 3", lambda: adaptry.load(3)),  # type: ignore[call-overload]
    (r"write ./out for the folder", lambda: adaptry.check("out")),
    (r"pass weights in a mapping: \{'acme/x': 0.5\}", lambda: adaptry.stack("acme/x=0.5", to="./both")),
    (r"no registry in nowhere", lambda: adaptry.search("./nowhere")),
    (r"no registry in nowhere", lambda: adaptry.load("acme/x", registry="./nowhere")),
    (r"belong to a version", lambda: adaptry.stack("./a", to="./both", alias="prod")),
    (r"replace is for folders", lambda: adaptry.stack("./a", to="acme/both", replace=True)),
    (r"all weights are 0", lambda: adaptry.merge({"./a": 0}, base="./b", to="./c")),
    (r"allowed chooses the rank", lambda: adaptry.resize("./a", rank=8, allowed=[8])),
    (r"pass rank or energy, not both", lambda: adaptry.export("./a", engine="vllm", rank=8, energy=0.9)),
    (r'pass engine="vllm"', lambda: adaptry.export("./a", to="./b")),
    (r"names a version, but only an alias can be rolled back", lambda: adaptry.rollback("./r", "acme/x@3")),
    (r"a reason must have 3 to 1024", lambda: adaptry.revoke("./r", "acme/x@3", reason="")),
    (r"unsupported dtype: 'int8'", lambda: adaptry.stack("./a", dtype="int8")),
    (r"a base is a name, an id or a folder", lambda: adaptry.check("./a", base=3)),  # type: ignore[arg-type]
    (r"limit must be at least 1", lambda: adaptry.search("./r", limit=0)),
]


@pytest.mark.parametrize(("sentence", "call"), CALLS, ids=[sentence for sentence, _ in CALLS])
def test_a_wrong_call_raises_an_error_with_a_sentence(
    sentence: str, call: Callable[[], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    with pytest.raises(adaptry.errors.AdaptryError, match=sentence):
        call()
    assert [path.name for path in tmp_path.iterdir() if path.name not in ("out", "registry")] == []


def test_passing_text_to_a_role_explains_that_it_takes_values(registry: adaptry.Registry) -> None:
    text: Any = "acme/tone@1"
    for call in (
        registry.versions.get,
        registry.versions.detail,
        registry.adapters.get,
        registry.aliases.list,
    ):
        with pytest.raises(adaptry.errors.InvalidRef, match=r"write registry.version\('acme/tone@1'\)"):
            call(text)


def test_a_registry_that_is_connected_to_closes_with_its_block(tmp_path: Path) -> None:
    with adaptry.connect(tmp_path / "registry") as registry:
        assert registry.adapters.list().items == ()
    with pytest.raises(adaptry.errors.NotFound, match="no registry in"):
        adaptry.connect(tmp_path / "other", create=False)


def test_the_package_lists_its_public_names_and_no_others() -> None:
    assert dir(adaptry) == sorted(adaptry.__all__)
    assert all(getattr(adaptry, public) is not None for public in dir(adaptry))
    assert {kind.__name__ for kind in by_code().values()} <= set(dir(adaptry.errors))
    assert all(issubclass(getattr(adaptry.errors, name), Exception) for name in dir(adaptry.errors))
    with pytest.raises(AttributeError, match="no attribute 'pusch'"):
        adaptry.pusch  # noqa: B018


def test_an_old_version_is_warned_of_in_the_log(
    registry: adaptry.Registry, name: str, lora: MakeLora, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from adaptry.core.refs import Ref
    from adaptry.operations.version_state import change_state
    from adaptry.registry.records import StateChange

    adaptry.push(registry, lora(), name)
    change_state(registry, Ref.parse(f"{name}@1"), StateChange(state="deprecated", reason="it stutters"))
    adaptry.pull(registry, f"{name}@1", tmp_path / "there")
    assert "it stutters" in caplog.text


@pytest.mark.slow
def test_a_server_gets_the_token_that_a_login_stored(
    server: Server, name: str, lora: MakeLora, home: Path
) -> None:
    with pytest.raises(adaptry.errors.Unauthenticated):
        adaptry.push(server.url, lora(), name)
    save_token(server.url, server.admin)
    assert adaptry.push(server.url, lora(), name).version.number == 1
    with pytest.raises(adaptry.errors.Unauthenticated):
        adaptry.connect(server.url, token="adr_pat_wrong").version(name)


def test_a_promotion_takes_one_more_condition_or_a_reason_to_override_it(
    registry: adaptry.Registry, name: str, lora: MakeLora
) -> None:
    adaptry.push(registry, lora(), name, metrics={"accuracy": 0.5})
    with pytest.raises(adaptry.errors.CheckFailed, match=r"accuracy is 0\.5"):
        adaptry.promote(registry, name, condition='metric("accuracy") > 0.6')
    with pytest.raises(adaptry.errors.Invalid, match="condition"):
        adaptry.promote(registry, name, condition="")
    assert adaptry.promote(registry, name, condition='metric("accuracy") > 0.4').alias.number == 1
    adaptry.push(registry, lora(seed=2), name, metrics={"accuracy": 0.5})
    forced = adaptry.promote(registry, name, condition='metric("accuracy") > 0.6', override="the first")
    assert forced.alias.number == 2
