"""Stored statistics, compared with numpy on the dense updates that PEFT computes."""

from __future__ import annotations

from pathlib import Path

import numpy
import pytest

from adaptry import open_dir
from adaptry.adapters import weight_statistics
from adaptry.adapters.weight_statistics import values_per_module
from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter
from adaptry.core.errors import CheckFailed

from .matrices import cosine, joined, norm

torch = pytest.importorskip("torch")
from adaptry.compute.comparison.statistics import measure_statistics, measure_weight_distance  # noqa: E402
from adaptry.compute.comparison.updates import open_updates  # noqa: E402

Q = "model.layers.0.self_attn.q_proj"


def trained(folder: Path, seed: int, **config) -> tuple[ParentAdapter, dict[str, numpy.ndarray]]:
    """An adapter saved by PEFT, and the dense updates that PEFT's layers return."""
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    torch.manual_seed(0)
    shape = transformers.LlamaConfig(
        hidden_size=48,
        intermediate_size=80,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=40,
    )
    model = transformers.LlamaForCausalLM(shape)
    torch.manual_seed(seed)
    made = peft.get_peft_model(
        model, peft.LoraConfig(task_type="CAUSAL_LM", init_lora_weights=False, **config)
    )
    made.save_pretrained(folder)
    updates = {
        name.removeprefix("base_model.model."): module.get_delta_weight("default").double().detach().numpy()
        for name, module in made.named_modules()
        if isinstance(module, peft.tuners.lora.LoraLayer)
    }
    return ParentAdapter(open_dir(folder), folder.name), updates


@pytest.mark.parametrize(
    "config",
    [
        {"r": 6, "lora_alpha": 9, "target_modules": ["q_proj", "v_proj", "down_proj"]},
        {"r": 16, "lora_alpha": 3, "use_rslora": True, "target_modules": ["k_proj", "embed_tokens"]},
        {
            "r": 4,
            "lora_alpha": 4,
            "target_modules": ["q_proj", "up_proj"],
            "rank_pattern": {"q_proj": 40},  # more than are kept
            "alpha_pattern": {"up_proj": 20},
        },
    ],
)
def test_statistics_equal_those_of_pefts_dense_updates(tmp_path: Path, config) -> None:
    parent, dense = trained(tmp_path / "one", seed=1, **config)

    found = measure_statistics(open_updates(parent))

    assert {module.module for module in found.modules} == dense.keys()
    for module in found.modules:
        values = numpy.linalg.svd(dense[module.module], compute_uv=False)
        kept = len(module.singular_values)
        assert kept == min(32, module.rank, *dense[module.module].shape)
        assert module.norm == pytest.approx(norm(dense[module.module]), rel=1e-6)
        assert module.singular_values == pytest.approx(values[:kept], rel=2e-5)
        shares = values[: module.rank] / values[: module.rank].sum()
        assert module.effective_rank == pytest.approx(
            numpy.exp(-(shares * numpy.log(shares)).sum()), rel=1e-5
        )
    assert found.norm == pytest.approx(norm(joined(dense)[0]), rel=1e-6)


def test_distances_equal_those_of_pefts_dense_updates_even_if_one_is_absent(tmp_path: Path) -> None:
    one, a = trained(tmp_path / "a", seed=1, r=4, target_modules=["q_proj", "v_proj"])
    other, b = trained(tmp_path / "b", seed=2, r=8, target_modules=["q_proj", "o_proj"])

    found = measure_weight_distance(open_updates(one), open_updates(other))

    first, second = joined(a, b)
    assert found.distance == pytest.approx(norm(first - second), rel=1e-6)
    assert found.cosine == pytest.approx(cosine(first, second), abs=1e-6)
    modules = {module.module: module for module in found.modules}
    assert modules.keys() == a.keys() | b.keys()
    assert modules[Q].distance == pytest.approx(norm(a[Q] - b[Q]), rel=1e-6)
    assert modules[Q].cosine == pytest.approx(cosine(a[Q], b[Q]), abs=1e-6)
    for name, module in modules.items():
        if name not in a or name not in b:
            assert module.cosine is None
            assert module.distance == pytest.approx(norm(a[name] if name in a else b[name]), rel=1e-6)


def test_a_distance_is_the_same_in_either_order_and_tiny_ones_are_exact(lora, tmp_path: Path) -> None:
    one, other = lora("a"), lora("b", seed=2, rank=8)
    there, back = (
        measure_weight_distance(open_updates(one), open_updates(other)),
        measure_weight_distance(open_updates(other), open_updates(one)),
    )
    assert there.distance == pytest.approx(back.distance, rel=1e-12)
    assert there.cosine == pytest.approx(back.cosine, rel=1e-12)
    same = measure_weight_distance(open_updates(one), open_updates(lora("again")))
    assert same.distance <= 1e-14 * measure_statistics(open_updates(one)).norm


def test_an_update_of_zero_has_no_effective_rank(lora) -> None:
    import struct

    extra = {
        f"base_model.model.model.layers.{layer}.self_attn.q_proj.lora_B.weight": (
            "F32", (16, 4), struct.pack("<64f", *[0.0] * 64)
        )
        for layer in range(2)
    }  # fmt: skip
    found = measure_statistics(open_updates(lora("zero", targets=("q_proj",), extra=extra)))
    assert found.norm == 0
    assert [module.effective_rank for module in found.modules] == [None, None]


def test_an_update_of_the_bases_weights_is_not_measured_without_the_base(lora) -> None:
    with pytest.raises(CheckFailed, match="pass the base"):
        open_updates(lora("pissa", config={"init_lora_weights": "pissa"}))


def test_adapters_of_different_shapes_are_not_compared(lora) -> None:
    with pytest.raises(CheckFailed, match="different bases"):
        measure_weight_distance(open_updates(lora("a")), open_updates(lora("wide", hidden=32)))


@pytest.mark.parametrize(("modules", "values"), [(1, 32), (560, 32), (18_432, 7), (10**6, 1)])
def test_the_number_of_stored_values_per_module_is_limited(modules: int, values: int) -> None:
    assert values_per_module(modules) == values
    assert modules * values <= max(modules, weight_statistics.MAX_KEPT_VALUES)
