"""vLLM's own reading of a config, if vLLM is installed: it refuses and scales as the rules state."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from adaptry.adapters.adapter import open_dir
from adaptry.checks.runtimes import check_runtime, parse_runtime
from adaptry.testing.samples import tiny_lora

peft_helper = pytest.importorskip(
    "vllm.lora.peft_helper", reason="vLLM is not installed here; the rules were read in 0.33.0"
)

CONFIGS: tuple[dict[str, Any], ...] = (
    *(
        {},
        {"use_rslora": True},
        {"use_dora": True},
        {"lora_bias": True},
        {"bias": "all"},
        {"bias": "lora_only"},
    ),
    *({"modules_to_save": names} for names in (["lm_head"], ["score"], ["classifier", "score"])),
    *(
        {"init_lora_weights": start}
        for start in (
            "pissa",
            "pissa_niter_8",
            "olora",
            "eva",
            "Gaussian",
            "loftq",
            "corda",
            "lora_ga",
            "mica",
            False,
        )
    ),
    *(
        {"alora_invocation_tokens": [1, 2]},
        {"layer_replication": [[0, 2], [1, 2]]},
        {"use_bdlora": {"nblocks": 2}},
    ),
    *({"use_qalora": True}, {"rank_pattern": {"q_proj": 64}}, {"alpha_pattern": {"q_proj": 4}}),
    *(
        {"r": 64, "rank_pattern": {"q_proj": 4, "v_proj": 4}},
        {"fan_in_fan_out": True},
        {"target_modules": ".*q_proj"},
    ),
    *({"target_modules": None}, {"lora_alpha": None}),
)


@pytest.mark.parametrize("limit", [8, 16, 64])
@pytest.mark.parametrize("config", CONFIGS, ids=json.dumps)
def test_vllm_refuses_the_configs_that_the_rules_say_it_refuses(
    tmp_path: Path, config: dict[str, Any], limit: int
) -> None:
    adapter = open_dir(_without_nulls(tiny_lora(tmp_path, config=config)))
    found = check_runtime(adapter, parse_runtime(f"vllm,max_lora_rank={limit}"))
    if found.outcome == "refused":
        with pytest.raises(ValueError):
            _loaded(adapter.config.fields, limit)
        return
    helper = _loaded(adapter.config.fields, limit)
    scales = {module.path: helper.get_rank_and_scaling(module.path)[1] for module in adapter.spec.modules}
    assert scales == {module.path: pytest.approx(module.scale) for module in adapter.spec.modules}


def _loaded(fields: Any, limit: int) -> Any:
    """The config as vLLM reads it, with the only limit that this reading uses. (`Any`: JSON, and vLLM's own
    class.)
    """
    helper = peft_helper.PEFTHelper.from_dict(dict(fields))
    helper.validate_legal(SimpleNamespace(max_lora_rank=limit))
    return helper


def _without_nulls(folder: Path) -> Path:
    """Leaves out fields that are null in an incomplete config, but that vLLM expects to be absent."""
    path = folder / "adapter_config.json"
    fields = json.loads(path.read_text())
    wanted = ("r", "lora_alpha", "target_modules")
    path.write_text(
        json.dumps({key: value for key, value in fields.items() if value is not None or key not in wanted})
    )
    return folder
