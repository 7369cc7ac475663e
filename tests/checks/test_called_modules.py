"""Models with modules that PEFT's layers do not suit: each module is adapted alone, and our findings are
compared with PEFT's unmerged adapter and PEFT's merge.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from torch import nn

import adaptry
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.compute.extraction.extracted_adapter import build_extracted_adapter
from adaptry.compute.extraction.plan import plan_extraction
from adaptry.compute.extraction.recipe import ExtractRecipe
from adaptry.compute.lazy_adapters.folder_writer import write_adapter

Inputs = Mapping[str, torch.Tensor]
IDS, FEW = torch.arange(1, 9).unsqueeze(0), torch.tensor([[9, 4, 7]])
SOUND = torch.sin(torch.arange(2000) / 7).unsqueeze(0)

# (`Any`: transformers' fields.)
WORDS: dict[str, Any] = {
    "vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 2, "intermediate_size": 24,
    "num_attention_heads": 2, "pad_token_id": 0,
}  # fmt: skip
LINEAR: dict[str, Any] = {
    **WORDS, "num_key_value_heads": 1, "head_dim": 8, "layer_types": ["linear_attention", "full_attention"],
    "linear_value_head_dim": 4,
    "linear_num_key_heads": 2, "linear_num_value_heads": 2, "linear_key_head_dim": 4,
}  # fmt: skip
STACKS: dict[str, Any] = {
    "vocab_size": 32, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24, "encoder_attention_heads": 2, "decoder_attention_heads": 2, "pad_token_id": 0,
    "max_position_embeddings": 64, "decoder_start_token_id": 2, "forced_eos_token_id": None,
}  # fmt: skip
EXPERTS = {"moe_intermediate_size": 8, "shared_expert_intermediate_size": 8, "num_experts": 2}
CONVOLUTIONS: dict[str, Any] = {
    "conv_dim": (8, 8), "conv_stride": (4, 4), "conv_kernel": (8, 4), "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2,
}  # fmt: skip
T5: dict[str, Any] = {"vocab_size": 32, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2}
RELATIVE: dict[str, Any] = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "type_vocab_size": 0}


def models() -> dict[str, tuple[Callable[[], Any], Inputs]]:
    """A model and its inputs. (`Any`: a transformers model.)"""
    t = transformers
    both = {"input_ids": IDS, "decoder_input_ids": FEW}
    few_experts = {**EXPERTS, "num_experts_per_tok": 1}
    qwen, sound = t.Qwen3NextConfig(**LINEAR, **few_experts), {"input_values": SOUND}
    return {
        "qwen3_next": (lambda: t.Qwen3NextForCausalLM(qwen), {"input_ids": IDS}),
        "qwen3_5": (lambda: t.Qwen3_5ForCausalLM(t.Qwen3_5TextConfig(**LINEAR)), {"input_ids": IDS}),
        "lfm2": (
            lambda: t.Lfm2ForCausalLM(
                t.Lfm2Config(**WORDS, num_key_value_heads=1, layer_types=["conv", "full_attention"])
            ),
            {"input_ids": IDS},
        ),
        "wavlm": (lambda: t.WavLMModel(t.WavLMConfig(**WORDS, **CONVOLUTIONS)), sound),
        "wav2vec2": (lambda: t.Wav2Vec2Model(t.Wav2Vec2Config(**WORDS, **CONVOLUTIONS)), sound),
        "deberta-v2": (
            lambda: t.DebertaV2Model(t.DebertaV2Config(**WORDS, **RELATIVE)),
            {"input_ids": IDS},
        ),
        "mobilebert": (
            lambda: t.MobileBertForMaskedLM(
                t.MobileBertConfig(
                    **WORDS, embedding_size=8, true_hidden_size=8, intra_bottleneck_size=8,
                    num_feedforward_networks=1,
                )
            ),
            {"input_ids": IDS},
        ),
        "opt": (
            lambda: t.OPTForCausalLM(t.OPTConfig(**WORDS, ffn_dim=24, word_embed_proj_dim=16)),
            {"input_ids": IDS},
        ),
        "bart": (lambda: t.BartForConditionalGeneration(t.BartConfig(**STACKS)), both),
        "pegasus": (lambda: t.PegasusForConditionalGeneration(t.PegasusConfig(**STACKS)), both),
        "t5": (lambda: t.T5ForConditionalGeneration(t.T5Config(**T5, decoder_start_token_id=0)), both),
        "siglip": (
            lambda: t.SiglipVisionModel(
                t.SiglipVisionConfig(
                    hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
                    image_size=16, patch_size=8,
                )
            ),
            {"pixel_values": torch.sin(torch.arange(768.0)).view(1, 3, 16, 16)},
        ),
    }  # fmt: skip


def build(kind: str) -> Any:
    torch.manual_seed(0)
    model = models()[kind][0]()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.randn(parameter.shape) * 0.05
    return model.eval()


def adapted_alone(model: Any) -> Iterator[tuple[str, peft.LoraConfig]]:
    """A LoRA of each kind of module that PEFT adapts; a grouped convolution is adapted as a parameter."""
    seen = set()
    for path, module in model.named_modules():
        name = re.sub(r"\.\d+\.", ".N.", path)
        if name in seen or not isinstance(module, (nn.Linear, nn.Embedding, nn.Conv1d, nn.Conv2d)):
            continue
        if type(model).__name__.startswith("Qwen3Next") and ".mlp." in path:
            continue  # PEFT adapts all of them together
        seen.add(name)
        if getattr(module, "groups", 1) == 1:
            yield path, peft.LoraConfig(r=4, lora_alpha=16, target_modules=[path], init_lora_weights=False)
        elif "parametrizations" not in dict(module.named_children()):
            parameters = [f"{path}.weight"]
            yield (
                path,
                peft.LoraConfig(
                    r=4,
                    lora_alpha=16,
                    target_modules=[],
                    target_parameters=parameters,
                    init_lora_weights=False,
                ),
            )


def answers(model: Any, kind: str) -> torch.Tensor | None:
    """The model's outputs; None if it raises an error."""
    try:
        with torch.no_grad():
            found = model(**models()[kind][1])
    except (RuntimeError, TypeError, IndexError):
        return None
    if "pooler_output" in found:  # the last hidden state does not show its attention
        return torch.cat([found.last_hidden_state.flatten(), found.pooler_output.flatten()])
    logits: torch.Tensor = found.logits if "logits" in found else found.last_hidden_state
    return logits


def codes(folder: Path, base: Path) -> set[str]:
    found = adaptry.check(folder, base=base, registry=folder.parent / "registry", progress=False)
    return {finding.code for finding in found.findings}


@pytest.mark.parametrize("kind", models())
def test_a_module_that_peft_adapts_without_effect_is_found(kind: str, tmp_path: Path) -> None:
    build(kind).save_pretrained(tmp_path / "base")
    model = type(build(kind)).from_pretrained(tmp_path / "base").eval()
    before = answers(model, kind)
    assert before is not None
    for number, (path, config) in enumerate(adapted_alone(model)):
        adapted = peft.get_peft_model(copy.deepcopy(model), config).eval()
        folder = tmp_path / str(number)
        adapted.save_pretrained(folder)
        live = answers(adapted, kind)
        merged = answers(adapted.merge_and_unload(), kind)
        assert merged is not None, path
        found = codes(folder, tmp_path / "base")
        is_idle = live is not None and torch.equal(live, before)
        is_used = not torch.equal(merged, before) or path.endswith("shared")
        assert ("modules_bypassed" in found) is (is_idle and is_used), (path, found)
        is_alike = live is not None and torch.allclose(live, merged, rtol=1e-3, atol=1e-4)
        is_expected = is_alike or "modules_bypassed" in found or "tied_embeddings" in found
        assert ("merge_differs" in found) is not is_expected, (path, found)


@pytest.mark.parametrize("kind", ["bart", "opt"])
def test_trained_rows_of_position_embeddings_are_reported(kind: str, tmp_path: Path) -> None:
    model = build(kind)
    model.save_pretrained(tmp_path / "base")
    config = peft.TrainableTokensConfig(token_indices=[1, 2, 3], target_modules=["embed_positions"])
    adapted = peft.get_peft_model(copy.deepcopy(model), config).eval()
    adapted.save_pretrained(tmp_path / "tone")
    live, before = answers(adapted, kind), answers(model, kind)
    assert before is not None
    assert live is None or not torch.allclose(live, before, atol=1e-3)  # although no row has changed
    assert "merge_differs" in codes(tmp_path / "tone", tmp_path / "base")


@pytest.mark.parametrize("kind", ["bart", "t5", "opt", "wavlm"])
def test_an_extracted_lora_of_such_a_model_gives_the_fine_tune_in_peft(kind: str, tmp_path: Path) -> None:
    base, fine = tmp_path / "base", build(kind)
    if kind == "t5":  # its head has separate weights, as in FLAN-T5
        fine.lm_head.weight = nn.Parameter(torch.randn(fine.lm_head.weight.shape))
    fine.save_pretrained(base)
    for name, parameter in fine.named_parameters():
        if name.endswith(".weight") and parameter.ndim == 2:
            parameter.data += torch.randn(parameter.shape) * 0.05
    fine.save_pretrained(tmp_path / "fine")

    plan = plan_extraction(ExtractRecipe(rank=64), open_checkpoint(base), open_checkpoint(tmp_path / "fine"))
    write_adapter(build_extracted_adapter(plan, str(base)), tmp_path / "lora")

    model = type(fine).from_pretrained(base).eval()
    live = answers(peft.PeftModel.from_pretrained(model, tmp_path / "lora").eval(), kind)
    wanted = answers(type(fine).from_pretrained(tmp_path / "fine").eval(), kind)
    assert live is not None
    assert wanted is not None
    assert torch.allclose(live, wanted, rtol=0, atol=1e-3)


def sam() -> tuple[Any, dict[str, torch.Tensor]]:
    """The model, and its inputs: an image and a point. (`Any`: transformers is not typed.)"""
    image = {"image_size": 32, "patch_size": 8}
    stack = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "mlp_dim": 24}
    config = transformers.SamConfig(
        vision_config={**image, **stack, "output_channels": 16, "window_size": 2, "num_pos_feats": 8},
        prompt_encoder_config={**image, "hidden_size": 16, "image_embedding_size": 4},
        mask_decoder_config={**stack, "iou_head_hidden_dim": 16},
    )
    points = {"input_points": torch.tensor([[[[5.0, 7.0]]]]), "input_labels": torch.tensor([[[1]]])}
    pixels = torch.sin(torch.arange(3072.0)).view(1, 3, 32, 32)
    return transformers.SamModel(config), {"pixel_values": pixels, **points}


def detr() -> tuple[Any, dict[str, torch.Tensor]]:
    backbone = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", out_features=["stage2"]
    )
    config = transformers.DetrConfig(
        use_timm_backbone=False, use_pretrained_backbone=False, backbone_config=backbone, d_model=16,
        encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=24, decoder_ffn_dim=24, num_queries=5, num_labels=3,
    )  # fmt: skip
    pixels = torch.sin(torch.arange(3072.0)).view(1, 3, 32, 32)
    return transformers.DetrForObjectDetection(config), {"pixel_values": pixels}


@pytest.mark.parametrize(
    ("model", "target"),
    [
        (sam, "mask_tokens"),
        (sam, "iou_token"),
        (sam, "no_mask_embed"),
        (sam, "not_a_point_embed"),
        (sam, "point_embed.1"),
        (sam, "lin1"),
        (detr, "query_position_embeddings"),
        (detr, "fc1"),
    ],
)
def test_tokens_that_a_vision_model_reads_are_found(model: Any, target: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    built, inputs = model()
    built.save_pretrained(tmp_path / "base")
    base = type(built).from_pretrained(tmp_path / "base").eval()

    def everything(model: Any) -> torch.Tensor:
        with torch.no_grad():
            found = model(**inputs)
        kinds = ("pred_masks", "iou_scores", "logits", "pred_boxes")
        return torch.cat([found[kind].flatten() for kind in kinds if kind in found])

    before = everything(base)
    config = peft.LoraConfig(r=4, lora_alpha=64, target_modules=[target], init_lora_weights=False)
    adapted = peft.get_peft_model(base, config).eval()
    adapted.save_pretrained(tmp_path / "tone")

    is_idle = torch.equal(everything(adapted), before)
    assert ("modules_bypassed" in codes(tmp_path / "tone", tmp_path / "base")) is is_idle
    assert not torch.equal(everything(adapted.merge_and_unload()), before)
