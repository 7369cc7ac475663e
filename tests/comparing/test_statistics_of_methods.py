"""Stored statistics of methods other than LoRA, compared with numpy on the changes of PEFT's merge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy
import pytest

from adaptry import open_dir
from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter
from adaptry.core.errors import AdaptryError, CheckFailed, Unsupported

from .matrices import cosine, norm

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

from adaptry.compute.comparison import statistics, updates  # noqa: E402  (needs torch, here and below)
from adaptry.compute.comparison.statistics import measure_statistics, measure_weight_distance  # noqa: E402
from adaptry.compute.comparison.updates import AdapterUpdates, open_updates  # noqa: E402

from ..converting.converted import ground_of  # noqa: E402
from ..methods.additive import pair_of as additive_pair  # noqa: E402
from ..methods.lora_merging import merged_by_peft, save_adapter, save_base  # noqa: E402
from ..methods.on_base import pair_of as pair_on_base  # noqa: E402

FACTORED = ["loha", "lokr", "adalora", "gralora", "delora", "vblora"]
ADDED = ["vera", "miss", "randlora", "fourierft", "c3a", "shira"]
ON_BASE = ["oft", "boft", "hra", "ia3", "ia3 of conv1d", "ia3 of blocks", "hira", "road_1", "glora", "psoft"]
LORAS: dict[str, dict[str, Any]] = {
    "dora": {"use_dora": True},
    "pissa": {"init_lora_weights": "pissa"},
    "olora": {"init_lora_weights": "olora"},
}


class Measured:
    """An adapter's updates, as read by us and as the change made by PEFT's merge."""

    def __init__(self, folder: Path, name: str) -> None:
        if name in LORAS:
            self.base = save_base(folder / "base", "llama")
            adapter = save_adapter(
                self.base, folder / "adapter", target_modules=["q_proj", "down_proj"], **LORAS[name]
            )
            before, after = ground_of(self.base), merged_by_peft(self.base, adapter)
            weights = {name: before.read_tensor(name) for name in before.record.tensors}
        else:
            pair = additive_pair(folder, name) if name in [*FACTORED, *ADDED] else pair_on_base(folder, name)
            self.base, adapter = pair.base, pair.adapter
            weights, after = pair.base_weights(), pair.merged_by_peft()
        self.parent = ParentAdapter(open_dir(adapter), name)
        self.dense = {
            key.removesuffix(".weight"): (after[key].double() - weights[key].double()).flatten(1).numpy()
            for key in weights
            if key.endswith(".weight")
            and weights[key].dim() > 1
            and not torch.equal(after[key], weights[key])
        }

    def updates(self, *, with_base: bool = True) -> AdapterUpdates:
        return open_updates(self.parent, ground_of(self.base) if with_base else None)


def check(measured: Measured, *, with_base: bool = True) -> None:
    found = measure_statistics(measured.updates(with_base=with_base))
    modules = {module.module: module for module in found.modules}
    assert modules.keys() == measured.dense.keys()
    for name, module in modules.items():
        values = numpy.linalg.svd(measured.dense[name], compute_uv=False)
        kept = len(module.singular_values)
        assert module.norm == pytest.approx(norm(measured.dense[name]), rel=1e-4)
        assert module.singular_values == pytest.approx(values[:kept], rel=1e-4, abs=1e-4 * values[0])
        assert module.rank <= min(measured.dense[name].shape)
        shares = values / values.sum()
        shares = shares[shares > 1e-6]  # the rounding of PEFT's merge must not count as a direction
        wanted = numpy.exp(-(shares * numpy.log(shares)).sum())
        assert module.effective_rank == pytest.approx(wanted, rel=5e-3)
    whole = numpy.concatenate([one.ravel() for one in measured.dense.values()])
    assert found.norm == pytest.approx(norm(whole), rel=1e-4)


@pytest.mark.parametrize("name", FACTORED)
def test_methods_whose_tensors_show_the_shapes_are_measured_without_a_base(tmp_path: Path, name: str) -> None:
    check(Measured(tmp_path, name), with_base=False)


@pytest.mark.parametrize("name", [*ADDED, *ON_BASE, *LORAS])
def test_other_methods_are_measured_on_their_base(tmp_path: Path, name: str) -> None:
    check(Measured(tmp_path, name))


@pytest.mark.parametrize("pair", [("oft", "ia3"), ("hra", "oft")])
def test_two_methods_on_one_base_are_as_far_apart_as_pefts_merges(
    tmp_path: Path, pair: tuple[str, str]
) -> None:
    one, other = (Measured(tmp_path / name.replace(" ", "-"), name) for name in pair)
    found = measure_weight_distance(one.updates(), other.updates())
    for module in found.modules:
        a, b = one.dense[module.module], other.dense[module.module]
        assert module.distance == pytest.approx(norm(a - b), rel=1e-4)
        assert module.cosine == pytest.approx(cosine(a, b), abs=1e-4)


def test_factors_and_a_dense_update_of_one_weight_are_compared(tmp_path: Path) -> None:
    one, other = Measured(tmp_path / "loha", "loha"), Measured(tmp_path / "fourierft", "fourierft")
    found = measure_weight_distance(one.updates(), other.updates())
    there = {module.module: module for module in found.modules}
    shared = one.dense.keys() & other.dense.keys()
    assert shared
    for name in shared:
        a, b = one.dense[name], other.dense[name]
        assert there[name].distance == pytest.approx(norm(a - b), rel=1e-4)
        assert there[name].cosine == pytest.approx(cosine(a, b), abs=1e-4)


def test_only_the_largest_singular_values_of_a_large_dense_update_are_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = Measured(tmp_path, "ia3")
    whole = measure_statistics(measured.updates())
    monkeypatch.setattr(statistics, "FULL_SIDE", 8)
    monkeypatch.setattr(statistics, "values_per_module", lambda modules: 2)
    found = measure_statistics(measured.updates())
    assert found.norm == pytest.approx(whole.norm, rel=1e-6)
    for some, all_of in zip(found.modules, whole.modules, strict=True):
        assert some.effective_rank is None
        assert some.singular_values == pytest.approx(all_of.singular_values[:2], rel=1e-3)


def test_an_update_that_needs_its_base_or_is_too_large_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = Measured(tmp_path, "ia3")
    with pytest.raises(CheckFailed, match="pass the base"):
        measured.updates(with_base=False)
    monkeypatch.setattr(updates, "MAX_ELEMENTS", 100)
    with pytest.raises(Unsupported, match="too large to measure"):
        measured.updates()


def test_methods_without_a_change_of_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(AdaptryError):
        Measured(tmp_path, "ln_tuning").updates()
