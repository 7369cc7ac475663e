"""AdaMSS: the rows that it changes follow from the base, so it is merged only if the same rows are found."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from adaptry import open_dir
from adaptry.core.errors import AdaptryError, InvalidWeights, MissingDependency

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
pytest.importorskip("transformers")

from safetensors.torch import load_file, save_file  # noqa: E402  (needs torch)

from .on_base import LINEAR, Pair, pair_of  # noqa: E402  (needs torch and PEFT)


def trained(folder: Path, dtype: Any = torch.float32, **fields: Any) -> Pair:
    """A trained adapter; PEFT itself needs scikit-learn to make one."""
    pytest.importorskip("sklearn")
    config = peft.AdamssConfig(target_modules=LINEAR, **{"r": 8, "num_subspaces": 3, **fields})
    return Pair(folder, "llama", config, dtype)


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.float16], ids=["fp32", "bf16", "fp16"]
)
@pytest.mark.parametrize("fields", [{}, {"subspace_rank": 2, "random_seed": 5}, {"r": 100}], ids=str)
def test_a_merge_changes_weights_and_biases_as_in_peft(
    tmp_path: Path, dtype: Any, fields: dict[str, Any]
) -> None:
    pair = trained(tmp_path, dtype, **fields)

    merged, expected, before = pair.merged(), pair.merged_by_peft(), pair.base_weights()

    changed = {name for name in merged if not torch.equal(merged[name], before[name])}
    assert {name.rpartition(".")[2] for name in changed} == {"weight", "bias"}
    assert all(torch.equal(tensor, expected[name].to(dtype)) for name, tensor in merged.items())


def test_merging_into_another_base_of_the_same_shapes_is_refused(tmp_path: Path) -> None:
    pair = trained(tmp_path)
    other = {name: tensor.roll(1, 0) for name, tensor in load_file(pair.base / "model.safetensors").items()}
    save_file(other, pair.base / "model.safetensors")

    with pytest.raises(InvalidWeights, match="the rows that it changes are unknown"):
        pair.merged()
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"num_subspaces": 2}, "does not have the 2 parts"),
        ({"random_seed": 1}, "the rows that it changes are unknown"),
    ],
    ids=str,
)
def test_a_config_that_is_not_the_trained_one_is_refused(
    tmp_path: Path, fields: dict[str, Any], reason: str
) -> None:
    pair = trained(tmp_path, r=4)
    pair.configure(**fields)

    with pytest.raises(AdaptryError, match=reason):
        pair.merged()


def test_without_scikit_learn_an_adamss_is_described_but_not_merged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is written with PEFT's names and shapes, since PEFT could not make one either."""
    monkeypatch.setitem(sys.modules, "sklearn", None)
    pair = pair_of(tmp_path, "beft")
    shapes = {"A.0": (2, 6), "B.0": (20, 2), "A.1": (2, 6), "B.1": (12, 2), "newB": (6, 33)}
    path = "base_model.model.model.layers.0.self_attn.q_proj.adamss_"
    save_file(
        {f"{path}{name}": torch.ones(shape) for name, shape in shapes.items()},
        pair.adapter / "adapter_model.safetensors",
    )
    pair.configure(peft_type="ADAMSS", r=6, target_modules=["q_proj"])

    (module,) = open_dir(pair.adapter).spec.modules

    assert (module.rank, module.fan_out) == (6, 32)
    with pytest.raises(MissingDependency, match="pip install scikit-learn"):
        pair.merged()
