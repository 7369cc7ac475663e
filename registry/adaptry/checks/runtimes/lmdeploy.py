"""What LMDeploy's PyTorch engine takes: factors of the modules it is told, all with one scale."""

from __future__ import annotations

from adaptry.checks.runtimes import conditions as when
from adaptry.checks.runtimes import repairs, scales, shared
from adaptry.checks.runtimes.rule import Engine, Needs, Rule

_SCALE = "lmdeploy/pytorch/adapter/adapter.py · get_ranks_and_scalings"
_LOAD = "lmdeploy/pytorch/adapter/adapter.py · load_lora_weights"


def _start(needs: Needs) -> tuple[str, ...]:
    return ("--adapters", *("NAME=DIR" for _ in range(needs.count)))


LMDEPLOY = Engine(
    name="lmdeploy",
    title="LMDeploy",
    read="1263d5c",
    gates=(shared.peft_files(_LOAD), shared.only_lora(_LOAD)),
    rules=(
        shared.scale(
            scales.of_config,
            "rsLoRA, `alpha_pattern` or `rank_pattern`: the scale is `lora_alpha / r` for all",
            _SCALE,
        ),
        shared.dora("refuses", f"{_LOAD}: KeyError"),
        shared.biases("refuses", f"{_LOAD}: KeyError"),
        shared.saved_modules("refuses", f"{_LOAD}: KeyError"),
        shared.token_rows("refuses", f"{_LOAD}: KeyError"),
        shared.unmatched("refuses", f"{_LOAD}: KeyError"),
        shared.odd_layers("refuses", f"{_LOAD}: KeyError"),
        shared.fused_experts("refuses", f"{_LOAD}: KeyError"),
        shared.variants("changes", _SCALE),
        shared.starts_from_base("changes", _SCALE),
        Rule(
            "targets_text",
            "refuses",
            "`target_modules` as a text",
            when.target_text(),
            repairs.LIST_TARGETS,
            _SCALE,
        ),
    ),
    cautions=("Adapters are named when it starts; none is loaded later.", "Nothing compares the base."),
    start=_start,
)
