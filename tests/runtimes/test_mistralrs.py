"""The real mistral.rs on the CPU: its output with an adapter matches the verdict, and PEFT's output if the
verdict is `as trained`.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

from adaptry.checks.runtimes import parse_runtime

from ..formats.other_environment import OtherEnvironment
from .agreement import Agreement, Both, answers, compared
from .cases import SIZES, Case, made_base, saved

ENVIRONMENT = OtherEnvironment("mistralrs", "../runtimes/mistralrs_engine.py")
pytestmark = ENVIRONMENT.marks


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Both]:
    folder = tmp_path_factory.mktemp("mistralrs")
    return compared(parse_runtime("mistral.rs"), answers(ENVIRONMENT), folder, made_base(folder / "base"))


class TestMistralrs(Agreement):
    """The contract, without further tests."""


EXPERTS = {
    "attention": Case({"target_modules": ["q_proj", "v_proj"]}),
    "fused": Case(
        {"target_modules": ["q_proj"],
         "target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]}),
    "fused, one of them": Case(
        {"target_modules": ["q_proj"], "target_parameters": ["mlp.experts.down_proj"]}),
    "all-linear": Case({"target_modules": "all-linear"}),
}  # fmt: skip


@pytest.mark.filterwarnings(
    "ignore:The following .*_pattern keys:RuntimeWarning"
)  # PEFT's own warning, about its own patterns
def test_split_experts_are_served_as_trained(tmp_path: Path) -> None:
    """If experts are fused, as PEFT writes them, mistral.rs accepts the adapter and gives different
    output.
    """
    torch.manual_seed(0)
    sizes = {"num_experts": 3, "moe_intermediate_size": 32, "num_experts_per_tok": 2, "head_dim": 16}
    model = Qwen3MoeForCausalLM(Qwen3MoeConfig(**SIZES, **sizes)).eval()
    base = saved(model, tmp_path / "base", num_experts=3, max_window_layers=2, use_sliding_window=False)
    found = compared(parse_runtime("mistral.rs"), answers(ENVIRONMENT), tmp_path, base, EXPERTS)
    assert {name: both.seen.outcome for name, both in found.items()} == {
        "attention": "as_trained", "fused": "not_as_trained", "fused, one of them": "not_as_trained",
        "all-linear": "refused",
    }  # fmt: skip
    assert all(both.said.outcome == both.seen.outcome for both in found.values())
    exports = {name: both.export.outcome for name, both in found.items() if both.export}
    assert exports.keys() >= {"fused", "fused, one of them", "all-linear"}
    assert set(exports.values()) == {"as_trained"}


KINDS = {
    "Mistral": {"head_dim": 16, "sliding_window": None},
    "Qwen2": {},
    "Qwen3": {"head_dim": 16},
    "Phi3": {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
    "Gemma2": {"head_dim": 16, "query_pre_attn_scalar": 16},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_lora_of_every_linear_layer_is_served_as_trained_on_other_bases(tmp_path: Path, kind: str) -> None:
    """These bases have biases, norms of queries, or several weights stored as one."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**{**SIZES, **KINDS[kind]})
    model = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    fields = {"sliding_window": getattr(config, "sliding_window", None), "rope_scaling": None}
    fields |= {"attention_bias": False}
    base = saved(
        model,
        tmp_path / "base",
        **fields,
        hidden_act=getattr(config, "hidden_act", None) or config.hidden_activation,
    )
    cases = {
        "plain": Case({"target_modules": "all-linear"}),
        "rslora": Case({"target_modules": "all-linear", "use_rslora": True}),
    }
    found = compared(parse_runtime("mistral.rs"), answers(ENVIRONMENT), tmp_path, base, cases)
    assert {(both.said.outcome, both.seen.outcome) for both in found.values()} == {
        ("as_trained", "as_trained")
    }
