"""A result compared with its parents: every number equals its definition on dense matrices."""

from __future__ import annotations

from pathlib import Path

import pytest

from adaptry import open_dir
from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter

from .matrices import conflict, cosine, joined, norm, overlap

torch = pytest.importorskip("torch")
from adaptry.compute.combining.combine import build_combined_adapter  # noqa: E402
from adaptry.compute.combining.plan import plan_combination  # noqa: E402
from adaptry.compute.comparison.combine_report import build_combine_report  # noqa: E402
from adaptry.compute.comparison.measures import measure_sign_conflict  # noqa: E402
from adaptry.compute.lazy_adapters.folder_writer import write_adapter  # noqa: E402
from adaptry.compute.recipes.combine import CombineRecipe  # noqa: E402
from adaptry.compute.recipes.merge import RecipeInput  # noqa: E402
from adaptry.compute.tensors.lowrank import Factors  # noqa: E402

Q = "model.layers.0.self_attn.q_proj"
K = "model.layers.0.self_attn.k_proj"


@pytest.fixture
def combined(tmp_path: Path):
    """Combines parents into the folder `result`; returns their report."""

    def combine(*weighted: tuple[ParentAdapter, float], **options):
        inputs = tuple(RecipeInput(source=parent.label, weight=weight) for parent, weight in weighted)
        parents = [parent for parent, _ in weighted]
        drafted = build_combined_adapter(plan_combination(CombineRecipe(inputs=inputs, **options), parents))
        outcome = write_adapter(drafted, tmp_path / "result")
        return build_combine_report(parents, ParentAdapter(open_dir(tmp_path / "result"), "result"), outcome)

    return combine


def test_a_modules_figures_equal_those_of_its_dense_matrices(lora, dense, combined) -> None:
    found = combined((lora("a", rank=4), 0.7), (lora("b", rank=8, seed=2), 0.3), rank=5)

    a, b, result = dense("a")[Q], dense("b")[Q], dense("result")[Q]
    module = next(module for module in found.modules if module.module == Q)
    assert module.norm == pytest.approx(norm(result), rel=1e-6)
    assert module.norms == pytest.approx((norm(a), norm(b)), rel=1e-6)
    assert module.ratios == pytest.approx((norm(result) / norm(a), norm(result) / norm(b)), rel=1e-6)
    assert module.cosines == pytest.approx((cosine(result, a), cosine(result, b)), abs=1e-6)
    assert module.conflict == pytest.approx(conflict(a, b), abs=1e-6)
    assert module.column_overlap == pytest.approx(overlap(a, b), abs=1e-6)
    assert module.row_overlap == pytest.approx(overlap(a.T, b.T), abs=1e-6)
    summed = 0.7 * a + 0.3 * b
    assert module.kept == pytest.approx(1 - norm(summed - result) ** 2 / norm(summed) ** 2, abs=1e-5)


def test_an_adapters_figures_treat_its_modules_as_one_vector(lora, dense, combined) -> None:
    parents = lora("a"), lora("b", seed=2, targets=("q_proj", "k_proj")), lora("c", seed=3)
    found = combined(*((parent, 1.0) for parent in parents))

    result, *vectors = joined(*map(dense, ("result", "a", "b", "c")))
    assert found.norm == pytest.approx(norm(result), rel=1e-6)
    assert found.norms == pytest.approx([norm(vector) for vector in vectors], rel=1e-6)
    assert found.cosines == pytest.approx([cosine(result, vector) for vector in vectors], abs=1e-6)
    assert found.conflict == pytest.approx(_conflict_where_several_are(*map(dense, "abc")), abs=1e-6)
    assert found.kept is None  # the plain sum is exact


def test_the_overlap_of_three_parents_is_the_mean_over_pairs(lora, dense, combined) -> None:
    found = combined((lora("a"), 1.0), (lora("b", seed=2), 1.0), (lora("c", seed=3), 1.0))

    a, b, c = (dense(name)[Q] for name in "abc")
    module = next(module for module in found.modules if module.module == Q)
    assert module.column_overlap == pytest.approx(
        (overlap(a, b) + overlap(a, c) + overlap(b, c)) / 3, abs=1e-6
    )


def test_a_parent_without_a_module_has_no_figure_there(lora, combined) -> None:
    found = combined((lora("a"), 1.0), (lora("b", seed=2, targets=("q_proj", "k_proj")), 1.0))

    module = next(module for module in found.modules if module.module == K)
    assert (module.norms[0], module.ratios[0], module.cosines[0]) == (None, None, None)
    assert (module.conflict, module.column_overlap) == (None, None)
    assert module.cosines[1] == pytest.approx(1.0)


def test_an_adapter_never_conflicts_with_itself_and_overlaps_completely(lora, combined) -> None:
    found = combined((lora("a"), 1.0), (lora("again"), 0.5))

    assert found.conflict == 0
    assert (found.column_overlap, found.row_overlap) == pytest.approx((1, 1))
    assert found.cosines == pytest.approx((1, 1))
    assert found.ratios == pytest.approx((1.5, 1.5))


def test_modules_that_cancel_are_reported_as_doing_nothing(lora, combined) -> None:
    found = combined((lora("a"), 1.0), (lora("again", targets=("q_proj",)), -1.0))

    assert set(found.doing_nothing) == {one.module for one in found.modules if one.module.endswith("q_proj")}
    assert found.doing_nothing and found.norm > 0


def test_a_parent_that_is_not_a_plain_lora_is_left_out_and_named(lora, tmp_path: Path) -> None:
    plain, dora = lora("a"), lora("d", config={"use_dora": True})

    found = build_combine_report([plain, dora], ParentAdapter(open_dir(tmp_path / "a"), "result"))

    assert found.parents == ("a",)
    assert "d " in found.notes[0] and "adaptry convert" in found.notes[0]


def test_a_report_is_unchanged_by_json(lora, combined) -> None:
    found = combined((lora("a"), 1.0), (lora("b", seed=2), 1.0), energy=0.9)

    assert type(found).model_validate_json(found.model_dump_json()) == found


def test_signs_of_a_large_site_are_reported_as_estimates_from_rows() -> None:
    draw = torch.Generator().manual_seed(1)
    one, other = (
        Factors(torch.randn(4096, 2, generator=draw), torch.randn(2, 1536, generator=draw)) for _ in range(2)
    )

    found = measure_sign_conflict([one, other])

    assert (found.sampled_rows, found.total_rows) == (2730, 4096)
    share = found.conflicting / found.mass
    assert share == pytest.approx(conflict(one.dense().numpy(), other.dense().numpy()), abs=0.005)


def test_experts_are_compared_one_by_one() -> None:
    from adaptry.compute.comparison.measures import subspace_overlaps, subspaces

    draw = torch.Generator().manual_seed(1)
    one, other = (
        Factors(torch.randn(3, 12, 2, generator=draw), torch.randn(3, 2, 10, generator=draw))
        for _ in range(2)
    )
    other.up[1] = 0  # this expert does nothing

    columns, rows = subspace_overlaps(subspaces(one), subspaces(other)) or (None, None)

    pairs = [(one.dense()[e].numpy(), other.dense()[e].numpy()) for e in (0, 2)]
    assert columns == pytest.approx(sum(overlap(a, b) for a, b in pairs) / 2, abs=1e-6)
    assert rows == pytest.approx(sum(overlap(a.T, b.T) for a, b in pairs) / 2, abs=1e-6)
    assert measure_sign_conflict([one, other]).conflicting / measure_sign_conflict(
        [one, other]
    ).mass == pytest.approx(conflict(one.dense().numpy(), other.dense().numpy()), abs=1e-6)


def _conflict_where_several_are(*adapters) -> float:
    """The conflict over the modules that at least two adapters have."""
    held = [set(adapter) for adapter in adapters]
    shared = {module for module in set.union(*held) if sum(module in modules for modules in held) > 1}
    return conflict(*joined(*({m: adapter[m] for m in shared & set(adapter)} for adapter in adapters)))
