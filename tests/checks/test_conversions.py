"""Modules that transformers renames or fuses while it loads a base: an adapter saved by PEFT is matched to
the checkpoint's names.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

from adaptry.adapters.adapter import Adapter, open_dir  # noqa: E402  (after libraries that may be missing)
from adaptry.adapters.base_record import BaseRecord  # noqa: E402
from adaptry.bases.fingerprinting import fingerprint  # noqa: E402
from adaptry.bases.hf_folder import open_checkpoint  # noqa: E402
from adaptry.bases.module_map import TargetTensor, place  # noqa: E402
from adaptry.checks import check  # noqa: E402
from adaptry.core.report import CheckReport  # noqa: E402

# PEFT warns that its own rank_pattern for fused experts matches no module, and transformers warns about
# deprecated calls.
pytestmark = [
    pytest.mark.filterwarnings(f"ignore::{kind}")
    for kind in ("UserWarning", "FutureWarning", "RuntimeWarning")
]

TEXT = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
DECODER = TEXT | {"intermediate_size": 48, "num_key_value_heads": 2}
VISION = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
IMAGE = {"image_size": 16, "patch_size": 8}
MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
FUSED = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]


def mixtral(**options: Any) -> Any:
    return transformers.MixtralForCausalLM(
        transformers.MixtralConfig(**DECODER | {"num_local_experts": 4} | options)
    )


def qwen2_moe(**options: Any) -> Any:
    config = transformers.Qwen2MoeConfig(**DECODER | MOE | {"shared_expert_intermediate_size": 24} | options)
    return transformers.Qwen2MoeForCausalLM(config)


def qwen3_moe() -> Any:
    return transformers.Qwen3MoeForCausalLM(transformers.Qwen3MoeConfig(**DECODER | MOE, head_dim=8))


def phimoe() -> Any:
    return transformers.PhimoeForCausalLM(transformers.PhimoeConfig(**DECODER, num_local_experts=4))


def granite_moe() -> Any:
    config = transformers.GraniteMoeConfig(**DECODER, num_local_experts=4, num_experts_per_tok=2)
    return transformers.GraniteMoeForCausalLM(config)


def vit() -> Any:
    return transformers.ViTForImageClassification(transformers.ViTConfig(**VISION | IMAGE))


def swin() -> Any:
    config = transformers.SwinConfig(
        **IMAGE | {"patch_size": 4}, embed_dim=16, depths=[1, 1], num_heads=[2, 2]
    )
    return transformers.SwinForImageClassification(config)


def dinov2(**options: Any) -> Any:
    config = transformers.Dinov2Config(**VISION | IMAGE | options)
    return transformers.Dinov2ForImageClassification(config)


def dinov2_giant(**options: Any) -> Any:
    """Its gate and up projections are stored as one."""
    return dinov2(use_swiglu_ffn=True, **options)


def vit_msn() -> Any:
    return transformers.ViTMSNForImageClassification(transformers.ViTMSNConfig(**VISION | IMAGE))


def bert() -> Any:
    return transformers.BertForMaskedLM(transformers.BertConfig(**TEXT, intermediate_size=48))


def distilbert() -> Any:
    config = transformers.DistilBertConfig(vocab_size=64, dim=32, hidden_dim=48, n_layers=1, n_heads=4)
    return transformers.DistilBertForMaskedLM(config)


def whisper() -> Any:
    config = transformers.WhisperConfig(
        vocab_size=64, d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48, num_mel_bins=8,
        max_source_positions=16, max_target_positions=16, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        decoder_start_token_id=1,
    )  # fmt: skip
    return transformers.WhisperForConditionalGeneration(config)


def trained(folder: Path, make: Callable[..., Any], **options: Any) -> tuple[Adapter, BaseRecord]:
    """An adapter as PEFT saves it for a model that was saved and loaded again, and that model's record."""
    torch.manual_seed(0)
    model = make()
    model.save_pretrained(folder / "base")
    loaded = type(model).from_pretrained(folder / "base")
    config = peft.LoraConfig(r=4, init_lora_weights=False, **options)
    peft.get_peft_model(loaded, config).save_pretrained(folder / "adapter")
    return open_dir(folder / "adapter"), fingerprint(open_checkpoint(folder / "base"))


def places(adapter: Adapter, base: BaseRecord) -> dict[str, TargetTensor]:
    return {placed.module.path: placed for placed in place(adapter.spec, base.tensors, base.facts).placed}


def codes(report: CheckReport) -> set[str]:
    return {finding.code for finding in report.findings}


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (mixtral, {"target_modules": "all-linear"}),
        (mixtral, {"target_modules": ["q_proj"], "target_parameters": FUSED[:1]}),
        (qwen2_moe, {"target_parameters": FUSED}),
        (qwen2_moe, {"target_modules": ["gate_proj", "up_proj"]}),
        (qwen3_moe, {"target_modules": "all-linear"}),
        (phimoe, {"target_modules": ["q_proj"], "target_parameters": FUSED}),
        (granite_moe, {"target_parameters": ["experts.gate_up_proj", "experts.down_proj"]}),
        (vit, {"target_modules": "all-linear"}),
        (swin, {"target_modules": ["q_proj", "fc1", "fc2"]}),
        (dinov2, {"target_modules": "all-linear"}),
        (vit_msn, {"target_modules": "all-linear"}),
    ],
)
def test_an_adapter_fits_its_base_without_a_finding(
    tmp_path: Path, make: Callable[..., Any], options: dict[str, Any]
) -> None:
    adapter, base = trained(tmp_path, make, **options)
    assert check(adapter, base).findings == ()


@pytest.mark.parametrize(
    ("make", "head"), [(bert, "decoder"), (distilbert, "vocab_projector"), (whisper, "proj_out")]
)
def test_a_head_with_another_name_is_tied_to_the_embedding(
    tmp_path: Path, make: Callable[..., Any], head: str
) -> None:
    adapter, base = trained(tmp_path, make, target_modules=[head])
    [placed] = places(adapter, base).values()
    assert (placed.orientation, placed.tied) == ("linear", True)
    assert codes(check(adapter, base)) == {"tied_embeddings"}


def test_a_heads_name_in_one_family_is_not_one_in_another(tmp_path: Path) -> None:
    adapter, _ = trained(tmp_path / "bert", bert, target_modules=["decoder"])
    _, other = trained(tmp_path / "whisper", whisper, target_modules=["proj_out"])
    assert "module_missing" in codes(check(adapter, other))


def test_fused_experts_map_to_the_tensors_they_are_fused_from(tmp_path: Path) -> None:
    adapter, base = trained(tmp_path, mixtral, target_modules="all-linear")
    placed = place(adapter.spec, base.tensors, base.facts).placed
    inner = [one for one in placed if one.module.path == "model.layers.0.mlp.experts.base_layer"]
    outer = [one for one in placed if one.module.path == "model.layers.0.mlp.experts"]
    assert (outer[0].module.parameter, inner[0].module.parameter) == ("down_proj", "gate_up_proj")
    at = "model.layers.0.block_sparse_moe.experts"
    assert [one.tensor for one in inner[:2]] == [f"{at}.0.w1.weight", f"{at}.0.w3.weight"]
    assert [one.tensor for one in outer] == [f"{at}.{expert}.w2.weight" for expert in range(4)]
    assert [one.expert.rows for one in inner[:2] if one.expert] == [(0, 48), (48, 96)]
    assert "model.layers.0.block_sparse_moe.gate.weight" in [one.tensor for one in placed]


def test_a_rank_pattern_names_the_parameter(tmp_path: Path) -> None:
    """PEFT gives gate and up together twice the requested rank."""
    adapter, _ = trained(tmp_path, mixtral, target_modules="all-linear")
    by_path = {module.path: module for module in adapter.spec.modules}
    assert by_path["model.layers.0.mlp.experts.base_layer"].rank == 4 * 8
    assert by_path["model.layers.0.mlp.experts"].rank == 4 * 4


@pytest.mark.parametrize(
    ("options", "words"),
    [({"num_local_experts": 8}, "is for 4 experts, but this base has 8"), ({"intermediate_size": 64}, "48")],
    ids=["more experts", "wider experts"],
)
def test_fused_experts_of_another_base_are_refused(
    tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    adapter, _ = trained(tmp_path, mixtral, target_parameters=FUSED)
    mixtral(**options).save_pretrained(tmp_path / "other")
    findings = {
        finding.code: finding
        for finding in check(adapter, fingerprint(open_checkpoint(tmp_path / "other"))).findings
    }
    assert words in findings["shape_mismatch"].reason


def test_a_family_whose_conversion_is_not_known_is_a_warning(tmp_path: Path) -> None:
    adapter, base = trained(tmp_path, dinov2_giant, target_modules=["gate_proj"])
    report = check(adapter, base)
    assert not report.is_blocked
    assert "dinov2" in next(f.reason for f in report.findings if f.code == "module_renamed")


def test_an_unknown_conversion_does_not_excuse_another_width(tmp_path: Path) -> None:
    adapter, _ = trained(tmp_path, dinov2_giant, target_modules=["gate_proj"])
    dinov2_giant(hidden_size=64).save_pretrained(tmp_path / "other")
    report = check(adapter, fingerprint(open_checkpoint(tmp_path / "other")))
    assert [finding.code for finding in report.blocking] == ["module_missing"]
