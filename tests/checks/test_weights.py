"""Findings that need the weights: NaN, infinities, zero factors."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from adaptry.adapters.adapter import open_dir
from adaptry.bases.fingerprinting import fingerprint
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.checks.weights import check_weights
from adaptry.testing.samples import random_tensor, tiny_base, tiny_lora, write_safetensors

AT = "base_model.model.model.layers"
SPECIAL = {
    "F32": {"nan": struct.pack("<f", float("nan")), "inf": struct.pack("<f", float("-inf"))},
    "F16": {"nan": struct.pack("<e", float("nan")), "inf": struct.pack("<e", float("inf"))},
    "BF16": {"nan": b"\xc0\x7f", "inf": b"\x80\xff"},
}
LARGE = {"F32": struct.pack("<f", 3e38), "F16": struct.pack("<e", 65504.0), "BF16": b"\x7f\x7f"}
WIDTH = {"F32": 4, "F16": 2, "BF16": 2}


def codes(folder: Path, dtype: str, last: bytes | None = None, zeros: tuple[int, ...] = ()) -> list[str]:
    """The codes of the findings about a two-layer adapter in which the last element of one B is replaced, and
    the B of some layers is zero.
    """
    tensors = {}
    for layer in (0, 1):
        key = f"{AT}.{layer}.self_attn.q_proj"
        tensors[f"{key}.lora_A.weight"] = random_tensor((4, 16), layer, dtype)
        kind, shape, data = random_tensor((16, 4), layer + 9, dtype)
        if layer in zeros:
            data = bytes(len(data))
        if last and layer == 1:
            data = data[: -WIDTH[dtype]] + last
        tensors[f"{key}.lora_B.weight"] = (kind, shape, data)
    tiny_lora(folder, targets=("q_proj",))
    write_safetensors(folder / "adapter_model.safetensors", tensors)
    return [finding.code for finding in check_weights(open_dir(folder))]


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_trained_weights_are_fine(tmp_path: Path, dtype: str) -> None:
    assert codes(tmp_path, dtype) == []


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_one_nan_is_found(tmp_path: Path, dtype: str) -> None:
    assert codes(tmp_path, dtype, SPECIAL[dtype]["nan"]) == ["weights_nan"]


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_one_infinity_is_found(tmp_path: Path, dtype: str) -> None:
    assert codes(tmp_path, dtype, SPECIAL[dtype]["inf"]) == ["weights_infinite"]


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_the_largest_number_is_too_large_but_not_infinite(tmp_path: Path, dtype: str) -> None:
    expected = "updates_large" if dtype == "F16" else "updates_overflow"
    assert codes(tmp_path, dtype, LARGE[dtype]) == [expected]


def test_an_adapter_whose_factors_are_all_zero_is_untrained(tmp_path: Path) -> None:
    assert codes(tmp_path, "F32", zeros=(0, 1)) == ["untrained"]


def test_some_factors_of_zeros_give_a_warning(tmp_path: Path) -> None:
    assert codes(tmp_path, "F32", zeros=(0,)) == ["modules_untrained"]


def test_negative_zeros_are_zeros(tmp_path: Path) -> None:
    assert codes(tmp_path, "F32", last=struct.pack("<f", -0.0), zeros=(0, 1)) == ["untrained"]


def test_one_value_among_zeros_is_training(tmp_path: Path) -> None:
    assert codes(tmp_path, "F32", last=struct.pack("<f", 1e-6), zeros=(0, 1)) == ["modules_untrained"]


def test_weights_of_repeated_layers_are_not_compared_with_the_base(tmp_path: Path) -> None:
    base = fingerprint(open_checkpoint(tiny_base(tmp_path / "base")))
    zero = ("F32", (16, 4), bytes(16 * 4 * 4))
    extra = {f"{AT}.{layer}.self_attn.q_proj.lora_B.weight": zero for layer in range(4)}
    extra |= {f"{AT}.{layer}.input_layernorm.weight": random_tensor((16,), layer) for layer in range(4)}
    repeated = {"layer_replication": [[0, 2], [0, 2]], "modules_to_save": ["input_layernorm"]}
    folder = tiny_lora(tmp_path / "out", layers=4, targets=("q_proj",), extra=extra, config=repeated)

    found = check_weights(open_dir(folder), base=base)

    assert [finding.code for finding in found] == ["modules_untrained"]
