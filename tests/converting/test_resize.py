"""LoRA resized to another rank: the nearest one, its measured error, and no change if none is needed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytest.importorskip("peft")
pytest.importorskip("transformers")

from safetensors.torch import load_file, save_file  # noqa: E402  (needs torch, here and below)

from adaptry import open_dir  # noqa: E402
from adaptry.compute.conversion.rank_energy import (  # noqa: E402
    compute_spectra,
    rank_curve,
    smallest_allowed_rank,
)
from adaptry.compute.conversion.resize import ResizeOptions, resize  # noqa: E402
from adaptry.compute.lazy_adapters.deltas import AdapterDeltas, open_adapter_deltas  # noqa: E402
from adaptry.compute.lazy_adapters.folder_writer import ComputeResult, write_adapter  # noqa: E402
from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter  # noqa: E402
from adaptry.core.errors import Unsupported  # noqa: E402

from ..methods.lora_merging import differing, merged_by_peft, save_adapter, save_base  # noqa: E402

MATRICES = ["q_proj", "v_proj", "down_proj"]
EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "linear": ("llama", {"rank_pattern": {"q_proj": 2}, "use_rslora": True}),
    "Conv1D": ("gpt2", {"target_modules": ["c_attn", "c_proj"]}),
    "convolutions": ("layers", {"target_modules": ["line", "plane", "space"]}),
    "an embedding": ("layers", {"target_modules": ["words"]}),
    "fused experts": ("qwen2_moe", {"target_modules": ["q_proj"], "target_parameters": EXPERTS}),
}

pytestmark = pytest.mark.filterwarnings(
    "ignore:The following (rank|alpha)_pattern keys:RuntimeWarning"
)  # parameters match


def adapter_of(folder: Path, case: str) -> Path:
    kind, fields = CASES[case]
    base = save_base(folder / "base", kind)
    return save_adapter(base, folder / "tone", **{"target_modules": MATRICES, "r": 4, **fields})


def updates_in(folder: Path) -> AdapterDeltas:
    return open_adapter_deltas(ParentAdapter(open_dir(folder), "tone"))


def resized(adapter: Path, target: Path, **goal: Any) -> ComputeResult:
    return write_adapter(resize(ParentAdapter(open_dir(adapter), "tone"), ResizeOptions(**goal)), target)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("rank", [1, 3])
def test_each_module_is_the_nearest_of_its_rank(tmp_path: Path, case: str, rank: int) -> None:
    adapter = adapter_of(tmp_path, case)

    outcome = resized(adapter, tmp_path / "thin", rank=rank)

    before, after = updates_in(adapter), updates_in(tmp_path / "thin")
    told = {each.module: each.figures for each in outcome.modules}
    energy = lost = 0.0
    for site in before.modules:
        whole, kept = before.factors(site).double().dense(), after.factors(site).double().dense()
        left, values, right = torch.linalg.svd(whole, full_matrices=False)
        values[..., rank:] = 0
        nearest = left @ (values.unsqueeze(-1) * right)
        assert torch.allclose(kept, nearest, atol=1e-6 * float(whole.norm()))
        figures = told[site.key]
        assert math.isclose(figures["energy"], float(whole.square().sum()), rel_tol=1e-9)
        assert math.isclose(
            figures["lost"],
            float((whole - kept).square().sum()),
            rel_tol=1e-6,
            abs_tol=1e-12 * figures["energy"],
        )
        energy, lost = energy + figures["energy"], lost + figures["lost"]
    assert outcome.kept is not None and math.isclose(outcome.kept, 1 - lost / energy, rel_tol=1e-9)


@pytest.mark.parametrize("case", CASES)
def test_resizing_to_the_current_rank_keeps_the_update(tmp_path: Path, case: str) -> None:
    adapter = adapter_of(tmp_path, case)

    outcome = resized(adapter, tmp_path / "same", rank=64)

    assert outcome.error == 0
    before, after = updates_in(adapter), updates_in(tmp_path / "same")
    assert {site.key: before.rank(site) for site in before.modules} == {
        site.key: after.rank(site) for site in after.modules
    }
    for site in before.modules:
        assert torch.equal(before.factors(site).down, after.factors(site).down)
        assert torch.equal(before.factors(site).with_unit_scale().up, after.factors(site).up)


def test_padding_with_zeros_does_not_change_the_model(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", "llama")
    adapter = save_adapter(
        base, tmp_path / "tone", target_modules=MATRICES, lora_alpha=4, rank_pattern={"q_proj": 2}
    )

    resized(adapter, tmp_path / "wide", rank=8, uniform=True)

    spec = open_dir(tmp_path / "wide").spec
    assert spec.ranks == (8,) and {module.scale for module in spec.modules} == {1.0}
    assert not differing(merged_by_peft(base, tmp_path / "wide"), merged_by_peft(base, adapter))


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(energy=st.floats(0.05, 1.0))
def test_every_module_keeps_the_energy_and_one_rank_less_would_not(
    energy: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("energy")
    adapter = adapter_of(folder, "linear")

    resized(adapter, folder / "thin", energy=energy)

    after = updates_in(folder / "thin")
    ranks = {site.key: after.rank(site) for site in after.modules}
    for spectrum in compute_spectra(updates_in(adapter)):
        rank = ranks[spectrum.module]
        assert spectrum.kept(rank) >= energy - 1e-9
        assert rank == 1 or spectrum.kept(rank - 1) < energy + 1e-9


def test_the_curve_predicts_the_energy_of_a_resize(tmp_path: Path) -> None:
    adapter = adapter_of(tmp_path, "linear")
    points = rank_curve(compute_spectra(updates_in(adapter)))

    assert [each.rank for each in points] == [1, 2, 4]
    for each in points:
        outcome = resized(adapter, tmp_path / f"rank-{each.rank}", rank=each.rank)
        shares = {told.module: 1 - told.figures["lost"] / told.figures["energy"] for told in outcome.modules}
        assert outcome.kept is not None and math.isclose(outcome.kept, each.kept, rel_tol=1e-6)
        assert math.isclose(min(shares.values()), each.worst_kept, rel_tol=1e-6)
    assert points[-1].kept == points[-1].worst_kept == 1


@pytest.mark.parametrize(
    ("allowed", "energy", "rank"),
    [([8, 16, 4], 1.0, 4), ([1, 2, 16], 1.0, 16), ([1, 2], 1.0, 2), ([1, 2, 3, 4], 0.5, 2)],
)
def test_a_rank_is_chosen_among_those_that_a_server_allows(
    tmp_path: Path, allowed: list[int], energy: float, rank: int
) -> None:
    found = compute_spectra(updates_in(adapter_of(tmp_path, "linear")))
    chosen = smallest_allowed_rank(found, allowed, energy)
    assert chosen.rank == rank
    assert chosen.kept >= energy or chosen.rank == max(allowed)


def test_half_precision_is_measured_as_it_is_written(tmp_path: Path) -> None:
    adapter = adapter_of(tmp_path, "linear")
    path = adapter / "adapter_model.safetensors"
    save_file({key: tensor.bfloat16() for key, tensor in load_file(path).items()}, path)

    wide = resized(adapter, tmp_path / "wide", rank=2)
    narrow = resized(adapter, tmp_path / "narrow", rank=2, dtype="BF16")

    assert open_dir(tmp_path / "narrow").spec.dtypes == ("BF16",)
    assert 0 < wide.error < narrow.error < 1.01 * wide.error


def test_resizing_refuses_adapters_that_are_not_plain_loras_with_convert_as_the_remedy(
    tmp_path: Path,
) -> None:
    base = save_base(tmp_path / "base", "llama")
    adapter = save_adapter(base, tmp_path / "tone", target_modules=MATRICES, use_dora=True)
    with pytest.raises(Unsupported, match="adaptry convert"):
        resized(adapter, tmp_path / "thin", rank=2)
