"""The tensors of an adapter's module: read once, also for blocks of rows that replace some of them."""

from __future__ import annotations

from pathlib import Path

import torch

from adaptry import open_dir
from adaptry.compute.tensors.adapter_tensors import AdapterTensors
from adaptry.testing.samples import tiny_lora


def test_blocks_of_rows_share_the_tensors_that_they_do_not_replace(tmp_path: Path) -> None:
    adapter = open_dir(tiny_lora(tmp_path / "adapter"))
    whole = AdapterTensors(adapter, adapter.spec.modules[0], "linear")
    blocks = [whole.with_tensors({"B": whole["B"][first : first + 8]}) for first in (0, 8)]

    assert blocks[0]["A"] is blocks[1]["A"] is whole["A"]
    assert torch.equal(torch.cat([block["B"] for block in blocks]), whole["B"])
    assert len(whole["B"]) == 16


def test_a_given_tensor_may_have_a_role_that_the_file_lacks(tmp_path: Path) -> None:
    adapter = open_dir(tiny_lora(tmp_path / "adapter"))
    whole = AdapterTensors(adapter, adapter.spec.modules[0], "linear")

    given = whole.with_tensors({"magnitude": torch.ones(16)})

    assert "magnitude" in given
    assert "magnitude" not in whole
