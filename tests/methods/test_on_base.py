"""Methods that read the base's weight: described, and merged as PEFT merges them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from adaptry import open_dir
from adaptry.core.errors import AdaptryError

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
pytest.importorskip("transformers")

from safetensors.torch import load_file  # noqa: E402  (needs torch)

from .on_base import CASES, pair_of  # noqa: E402  (needs torch and PEFT)
from .within_rounding import is_pefts_merge  # noqa: E402  (needs torch)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("name", CASES)
def test_a_merge_equals_pefts(tmp_path: Path, name: str, dtype: Any) -> None:
    pair = pair_of(tmp_path, name, dtype)

    merged, expected, before = pair.merged(), pair.merged_by_peft(), pair.base_weights()

    changed = {key for key in merged if not torch.equal(merged[key], before[key])}
    assert changed
    for key, tensor in merged.items():
        assert is_pefts_merge(name, tensor, expected[key].to(dtype), before[key]), key


SPECS = {
    "oft": ((), {"q_proj": (32, 0), "v_proj": (32, 0), "down_proj": (80, 0)}),
    "oft shared": ((), {"q_proj": (0, 0), "v_proj": (0, 0), "down_proj": (0, 0)}),
    "oft of blocks": ((), {"conv": (72, 0), "embedding": (0, 8), "linear": (8, 0)}),
    "boft": ((), {"q_proj": (32, 32), "v_proj": (32, 16), "down_proj": (80, 32)}),
    "hra": ((5,), {"q_proj": (32, 0), "v_proj": (32, 0), "down_proj": (80, 0)}),
    "road_1": ((), {"q_proj": (0, 32), "v_proj": (0, 16), "down_proj": (0, 32)}),
    "road_4": ((), {"q_proj": (0, 32), "v_proj": (0, 16), "down_proj": (0, 32)}),
    "ln_tuning": ((), {}),
    "hira": ((4,), {"q_proj": (32, 32), "v_proj": (32, 16), "down_proj": (80, 32)}),
    "hira of blocks": ((3,), {
        "conv": (8, 12), "embedding": (20, 8), "linear": (8, 16), "line": (8, 8), "one": (12, 8),
        "solid": (8, 4)}),
    "glora": ((4,), {"q_proj": (32, 32), "v_proj": (32, 16), "down_proj": (80, 32)}),
    "glora of vectors": ((), {"q_proj": (32, 32), "v_proj": (32, 16), "down_proj": (80, 32)}),
    "beft": ((), {"q_proj": (0, 32), "v_proj": (0, 16)}),
    "deft": ((4,), {"q_proj": (32, 32), "v_proj": (32, 16), "down_proj": (80, 32)}),
    "deft taking out": ((4,), {"q_proj": (0, 32), "v_proj": (0, 16), "down_proj": (0, 32)}),
    "peanut deep": ((4,), {"q_proj": (0, 32), "v_proj": (0, 16), "down_proj": (0, 32)}),
    "osf": ((4, 20), {"q_proj": (32, 32), "v_proj": (32, 16), "down_proj": (80, 32)}),
    "psoft": ((6,), {"q_proj": (0, 0), "v_proj": (0, 0), "down_proj": (0, 0)}),
    "frod": ((), {"q_proj": (32, 0), "v_proj": (32, 0), "down_proj": (80, 0)}),
    "trainable_tokens": ((), {}),
}  # fmt: skip


@pytest.mark.parametrize("name", SPECS)
def test_a_spec_has_sides_and_claims_every_tensor(tmp_path: Path, name: str) -> None:
    ranks, sides = SPECS[name]
    pair = pair_of(tmp_path, name)

    spec = open_dir(pair.adapter).spec

    assert spec.unclaimed == ()
    assert spec.ranks == ranks
    found = {module.path.rpartition(".")[2]: (module.fan_in, module.fan_out) for module in spec.modules}
    assert found == sides
    expected = ("tied_embeddings", "layers_uncovered", "merge_differs")
    assert not [code for code in pair.findings() if code not in expected]


def test_the_projections_of_frod_are_shared_by_kind(tmp_path: Path) -> None:
    spec = open_dir(pair_of(tmp_path, "frod").adapter).spec
    kinds = ("mlp_down_proj", "self_attn_q_proj", "self_attn_v_proj")
    assert set(spec.shared) == {f"{part}.{kind}" for part in ("V", "s_indices", "s_size") for kind in kinds}


def test_boft_of_two_butterfly_factors_is_the_product_of_pefts_permutations(tmp_path: Path) -> None:
    """PEFT itself supports more than one factor only with its CUDA extension."""
    butterfly = peft.tuners.boft.layer.Linear
    pair = pair_of(tmp_path, "boft")
    pair.configure(boft_n_butterfly_factor=2)
    pair.rewrite(lambda tensors: tensors.update({
        name: torch.randn(2, *tensor.shape[1:]) * 0.3 for name, tensor in tensors.items() if "boft_R" in name
    }))  # fmt: skip
    adapter, name = load_file(pair.adapter / "adapter_model.safetensors"), "model.layers.1.self_attn.v_proj"
    trained = adapter[f"base_model.model.{name}.boft_R"].double()
    product = torch.eye(32, dtype=torch.float64)
    for number, blocks in enumerate(trained):
        turned = 0.5 * (blocks - blocks.transpose(1, 2))
        one = torch.eye(8, dtype=torch.float64).expand_as(turned)
        factor = torch.block_diag(*((one - turned) @ torch.linalg.inv(one + turned)))
        order = butterfly.perm2mat(None, butterfly.block_butterfly_perm(None, 32, 4 // 2**number, 4, 1))
        product = order.double() @ factor @ order.double().T @ product
    scales = adapter[f"base_model.model.{name}.boft_s"].double()

    merged, before = pair.merged(), pair.base_weights()

    expected = (product @ before[f"{name}.weight"].double().T).T * scales
    assert torch.allclose(merged[f"{name}.weight"].double(), expected, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("glora")])
def test_paths_of_glora_with_other_shapes_than_pefts_are_never_merged(tmp_path: Path, name: str) -> None:
    pair = pair_of(tmp_path, name)
    path = pair.adapter / "adapter_model.safetensors"
    original = path.read_bytes()
    module = min(load_file(path)).partition(".glora_")[0]
    for key in [key for key in load_file(path) if key.startswith(module)]:
        for side in range(load_file(path)[key].dim()):
            pair.rewrite(
                lambda tensors, key=key, side=side: tensors.update({key: longer(tensors[key], side)})
            )
            with pytest.raises(AdaptryError):
                pair.merged()
            path.write_bytes(original)
    assert pair.merged()


def test_a_vector_of_glora_that_became_a_number_is_never_merged(tmp_path: Path) -> None:
    pair = pair_of(tmp_path, "glora of vectors")
    pair.rewrite(
        lambda tensors: tensors.update(
            {key: each[:1, 0] for key, each in tensors.items() if key.endswith("A.X")}
        )
    )
    with pytest.raises(AdaptryError):
        pair.merged()


@pytest.mark.parametrize("field", ["config_A_B", "config_C", "config_D_E"])
def test_a_form_of_glora_that_the_config_lacks_is_pefts_default(tmp_path: Path, field: str) -> None:
    pair = pair_of(tmp_path, "glora")
    config = json.loads((pair.adapter / "adapter_config.json").read_text())
    del config[field]
    (pair.adapter / "adapter_config.json").write_text(json.dumps(config))

    ours, theirs = pair.merged(), pair.merged_by_peft()

    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def longer(tensor: Any, side: int) -> Any:
    return torch.cat([tensor, tensor.narrow(side, 0, 1)], side)
