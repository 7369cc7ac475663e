"""An export that exceeds the allowed error writes nothing, and names a remedy."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from adaptry.adapters.adapter import open_dir
from adaptry.testing.samples import Tensors, tiny_lora, write_safetensors
from adaptry_cli.main import main

RANK16 = "vllm,max_lora_rank=16"


def exported(adapter: Path, to: Path, *words: str, engine: str = RANK16) -> Result:
    return CliRunner().invoke(
        main, ["export", str(adapter), "--for", engine, "-o", str(to), "--json", *words]
    )


def with_singular_values(folder: Path, values: list[float]) -> Path:
    """A LoRA of rank 32 whose updates all have these singular values: its factors are unit vectors."""
    adapter = tiny_lora(folder, rank=32, alpha=32, hidden=64, targets=("q_proj", "v_proj"))
    tensors: Tensors = {}
    for name, info in open_dir(adapter).tensors.items():
        rows, columns = info.shape
        scale = values if "lora_A" in name else [1.0] * 32
        numbers = [scale[row] if row == column else 0.0 for row in range(rows) for column in range(columns)]
        tensors[name] = ("F32", info.shape, struct.pack(f"<{len(numbers)}f", *numbers))
    write_safetensors(adapter / "adapter_model.safetensors", tensors)
    return adapter


def test_halving_the_rank_of_a_flat_spectrum_is_refused(tmp_path: Path) -> None:
    even = with_singular_values(tmp_path / "even", [1.0] * 32)

    refused = exported(even, tmp_path / "out")

    assert refused.exit_code == 1
    assert "relative error of 0.707" in refused.output and "at most 0.1 is allowed" in refused.output
    assert "--max-lora-rank 32" in refused.output and "--format checkpoint" in refused.output
    assert "--max-error 0.71" in refused.output
    assert not (tmp_path / "out").exists()


def test_the_refusal_names_the_smallest_rank_within_the_bound(tmp_path: Path) -> None:
    """20 of 32 values keep 99 %. The server accepts rank 32; the error at rank 20 is that of the 12 omitted
    values.
    """
    values = [1.0] * 20 + [0.1] * 12
    steep = with_singular_values(tmp_path / "steep", values)
    refused = exported(steep, tmp_path / "out")
    assert refused.exit_code == 1
    left = math.sqrt(12 * 0.01 / (20 + 12 * 0.01))
    assert f"at rank 20 the error is {left:.3g}" in refused.output
    allowed = exported(steep, tmp_path / "out", engine="sglang,max_lora_rank=20")
    assert allowed.exit_code == 0, allowed.output
    assert json.loads(allowed.stdout)["relative_error"] == pytest.approx(left, rel=1e-4)


def test_a_bound_can_be_set(tmp_path: Path) -> None:
    even = with_singular_values(tmp_path / "even", [1.0] * 32)
    allowed = exported(even, tmp_path / "out", "--max-error", "0.75")
    assert allowed.exit_code == 0, allowed.output
    assert json.loads(allowed.stdout)["relative_error"] == pytest.approx(math.sqrt(0.5), rel=1e-4)
    steep = with_singular_values(tmp_path / "steep", [1.0] * 16 + [0.05] * 16)
    assert exported(steep, tmp_path / "steep-out").exit_code == 0
    assert exported(steep, tmp_path / "stricter", "--max-error", "0.01").exit_code == 1


def test_a_share_of_energy_is_its_own_bound(tmp_path: Path) -> None:
    """`--energy 0.5` requests a result that a bound of 0.1 would refuse."""
    even = with_singular_values(tmp_path / "even", [1.0] * 32)
    refused = exported(even, tmp_path / "out", "--energy", "0.6")
    assert "at most 0.632 is allowed" in refused.output
    assert exported(even, tmp_path / "out", "--energy", "0.5").exit_code == 0
