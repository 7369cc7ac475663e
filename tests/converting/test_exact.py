"""Methods that equal a LoRA exactly: their factors, and the LoRA that PEFT loads instead."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")
pytest.importorskip("transformers")

from adaptry import open_dir  # noqa: E402  (needs torch and PEFT, here and below)
from adaptry.adapters.methods import METHODS  # noqa: E402
from adaptry.compute.conversion.delta import open_method_deltas  # noqa: E402
from adaptry.compute.conversion.weight_deltas import changed_weights  # noqa: E402
from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter  # noqa: E402

from ..methods.additive import CASES, pair_of  # noqa: E402
from .converted import distance, ground_of, in_place  # noqa: E402

EXACT = [
    "adalora", "adalora pruned", "adalora of which a module was removed", "adalora of kernels",
    "adalora of conv1d",
    "vera", "vera from a seed", "vera of conv1d", "pvera", "pvera from a seed of conv1d",
    "vblora", "vblora of choices", "vblora of conv1d",
    "loha", "loha of kernels", "loha of effective kernels",
    "lokr", "lokr of factors", "lokr of whole matrices", "lokr of kernels", "lokr of effective kernels",
    "lokr of whole kernels",
    "miss", "miss with a rest", "miss mini", "delora", "gralora", "gralora hybrid",
    "gralora hybrid of conv1d",
    "tinylora", "tinylora in groups", "tinylora in one group of conv1d", "tinylora of an embedding",
    "unilora", "unilora of conv1d",
]  # fmt: skip
CLOSE = 1e-6

pytestmark = pytest.mark.filterwarnings("ignore:The following rank_pattern keys:RuntimeWarning")


def test_every_exact_method_has_factors() -> None:
    exact = {name for name, method in METHODS.items() if method.lora_form == "exact"}
    assert exact == {name for name, method in METHODS.items() if method.factors is not None}
    assert {name.split(" ")[0] for name in EXACT} == exact - {"bone"}  # MiSS under its old name


@pytest.mark.parametrize("name", EXACT)
def test_the_product_of_the_factors_is_the_methods_update_of_zeros(tmp_path: Path, name: str) -> None:
    pair = pair_of(tmp_path, name)
    adapter, ground = open_dir(pair.adapter), ground_of(pair.base)
    changes = changed_weights(ParentAdapter(adapter, "tone"), ground)
    updates = open_method_deltas(ParentAdapter(adapter, "tone"), changes, ground)
    for changed in changes:
        own, factors = updates.dense(changed).double(), updates.factors(changed).double()
        assert factors.dense().shape == (changed.site.fan_out, changed.site.width)
        assert float((factors.dense() - own).norm()) <= CLOSE * float(own.norm())
        said = METHODS[adapter.spec.method].lora_rank(changed.module, adapter.config)
        assert said is not None and factors.rank <= said


@pytest.mark.parametrize("name", EXACT)
def test_peft_merges_the_lora_and_the_original_to_the_same_weights(tmp_path: Path, name: str) -> None:
    pair = pair_of(tmp_path, name)
    wanted, before = pair.merged_by_peft(), pair.base_weights()

    made = in_place(pair, tmp_path / "plain")

    assert made.adapter.spec.method == "lora"
    assert made.outcome.error <= CLOSE
    change = distance(wanted, before, before)
    assert distance(pair.merged_by_peft(), wanted, before) <= CLOSE * change
    assert distance(pair.merged(), wanted, before) <= CLOSE * change


@pytest.mark.parametrize(
    "name", ["vera", "vera from a seed", "adalora pruned", "unilora", "loha", "tinylora in groups"]
)
def test_a_half_precision_base_rounds_as_in_peft(tmp_path: Path, name: str) -> None:
    """PEFT keeps drawn or cut tensors in the base's dtype, so the LoRA has the rounded numbers."""
    pair = pair_of(tmp_path, name, torch.bfloat16)
    wanted = pair.merged_by_peft()

    in_place(pair, tmp_path / "plain")

    found = pair.merged_by_peft()
    assert all(torch.equal(found[key], wanted[key]) for key in pair.base_weights())


@pytest.mark.parametrize(
    "name",
    [
        "adalora",
        "adalora of which a module was removed",
        *("vblora", "loha", "delora", "gralora", "tinylora", "lokr"),
    ],
)
def test_adapters_whose_tensors_determine_the_sides_need_no_base(tmp_path: Path, name: str) -> None:
    pair = pair_of(tmp_path, name)
    wanted, before = pair.merged_by_peft(), pair.base_weights()
    base, pair.base = pair.base, None  # type: ignore[assignment]  # as if it were not there

    made = in_place(pair, tmp_path / "plain")

    pair.base = base
    assert distance(pair.merged_by_peft(), wanted, before) <= CLOSE * distance(wanted, before, before)
    is_flat = any("Linear" in note for note in made.lazy_adapter.notes)
    assert is_flat == name.startswith(("adalora", "loha", "lokr"))


def test_the_cases_equal_those_of_merging() -> None:
    assert set(EXACT) <= CASES.keys()
