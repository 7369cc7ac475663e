"""Adapters made with `all-linear`, written with separate experts. PEFT gives their fused experts two ranks,
and their routers are parameters.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig

from adaptry.bases.fingerprinting import fingerprint
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.checks import check

from .test_convert_layout import adapted, merged_by_peft, mixtral, moved, qwen, saved


@pytest.mark.filterwarnings("ignore:The following .*_pattern keys:RuntimeWarning")  # PEFT's own
@pytest.mark.parametrize("make", [mixtral, qwen])
def test_peft_reads_an_all_linear_adapter_with_separate_experts_as_before(tmp_path: Path, make: Any) -> None:
    torch.manual_seed(0)
    model = make()
    base = saved(model, tmp_path / "base")
    fused = adapted(model, LoraConfig(r=4, target_modules="all-linear"), tmp_path / "fused")

    each = moved(fused, base, "transformers4", tmp_path / "each")

    assert not check(each, fingerprint(open_checkpoint(base))).is_blocked
    routers = [module for module in each.spec.modules if module.path.endswith(".gate")]
    assert len(routers) == 2 and all(module.parameter is None for module in routers)
    before, after = (merged_by_peft(model, tmp_path / name) for name in ("fused", "each"))
    assert all(torch.allclose(after[name], weight, atol=1e-7) for name, weight in before.items())
    changed = [name for name, weight in model.state_dict().items() if not torch.equal(weight, after[name])]
    assert len(changed) == 14  # of each layer: four of attention, two of experts, the router
