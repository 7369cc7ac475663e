"""Adapters that PEFT saves or accepts in a config, but refuses to load; and some that it loads although they
look broken.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers as t
from safetensors.torch import load_file, save_file
from tests.checks.peft_oracle import compare, is_close, save_base, save_trained

IDS = torch.arange(3, 11).unsqueeze(0)
FEW = torch.tensor([[9, 4, 7]])
PIXELS = torch.sin(torch.arange(3072.0)).view(1, 3, 32, 32)
SOUND = torch.sin(torch.arange(2000) / 7).unsqueeze(0)
# (`Any`: transformers' fields.)
WORDS: dict[str, Any] = {
    "vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 2, "intermediate_size": 24,
    "num_attention_heads": 2, "pad_token_id": 0,
}  # fmt: skip
STACKS: dict[str, Any] = {
    "vocab_size": 32, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24, "encoder_attention_heads": 2, "decoder_attention_heads": 2, "pad_token_id": 0,
    "max_position_embeddings": 64, "decoder_start_token_id": 2, "forced_eos_token_id": None,
}  # fmt: skip
CONVOLUTIONS: dict[str, Any] = {
    "conv_dim": (8, 8), "conv_stride": (4, 4), "conv_kernel": (8, 4), "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2,
}  # fmt: skip
BOTH = {"input_ids": IDS, "decoder_input_ids": FEW}
WRITTEN: dict[str, Any] = {"input_ids": IDS}


def detr() -> Any:
    backbone = t.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", out_features=["stage2"]
    )
    return t.DetrForObjectDetection(
        t.DetrConfig(
            use_timm_backbone=False, use_pretrained_backbone=False, backbone_config=backbone, d_model=16,
            encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
            encoder_ffn_dim=24, decoder_ffn_dim=24, num_queries=5, num_labels=3,
        )
    )  # fmt: skip


def speech() -> Any:
    return t.SpeechT5ForSpeechToText(
        t.SpeechT5Config(
            vocab_size=32, hidden_size=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
            decoder_attention_heads=2, encoder_ffn_dim=24, decoder_ffn_dim=24, num_mel_bins=8,
            pad_token_id=0, **CONVOLUTIONS,
        )
    )  # fmt: skip


def mllama() -> Any:
    vision = {
        "hidden_size": 16, "num_hidden_layers": 1, "num_global_layers": 1, "attention_heads": 2,
        "intermediate_size": 24, "vision_output_dim": 32, "image_size": 16, "patch_size": 8,
        "max_num_tiles": 1, "intermediate_layers_indices": [0], "supported_aspect_ratios": [[1, 1]],
    }  # fmt: skip
    text = {
        **WORDS, "num_key_value_heads": 1, "cross_attention_layers": [1], "max_position_embeddings": 64,
        "bos_token_id": 1, "eos_token_id": 2, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
    }  # fmt: skip
    return t.MllamaForConditionalGeneration(t.MllamaConfig(vision_config=vision, text_config=text))


def convnext() -> Any:
    config = t.ConvNextConfig(hidden_sizes=[8, 16], depths=[1, 1], num_stages=2, patch_size=4, num_labels=3)
    return t.ConvNextForImageClassification(config)


MODELS: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "llama": (lambda: t.LlamaForCausalLM(t.LlamaConfig(**WORDS, num_key_value_heads=1)), WRITTEN),
    "bert": (lambda: t.BertForSequenceClassification(t.BertConfig(**WORDS)), WRITTEN),
    "bert_mlm": (lambda: t.BertForMaskedLM(t.BertConfig(**WORDS)), WRITTEN),
    "roberta": (lambda: t.RobertaForSequenceClassification(t.RobertaConfig(**WORDS)), WRITTEN),
    "gpt2": (
        lambda: t.GPT2LMHeadModel(t.GPT2Config(vocab_size=32, n_embd=16, n_layer=2, n_head=2)),
        WRITTEN,
    ),
    "bart": (lambda: t.BartForConditionalGeneration(t.BartConfig(**STACKS)), BOTH),
    "marian": (lambda: t.MarianMTModel(t.MarianConfig(**STACKS)), BOTH),
    "t5_encoder": (
        lambda: t.T5EncoderModel(t.T5Config(vocab_size=32, d_model=16, d_kv=8, d_ff=24, num_layers=1)),
        WRITTEN,
    ),
    "wav2vec2": (
        lambda: t.Wav2Vec2ForCTC(t.Wav2Vec2Config(**WORDS, **CONVOLUTIONS)),
        {"input_values": SOUND},
    ),
    "convnext": (convnext, {"pixel_values": PIXELS}),
    "detr": (detr, {"pixel_values": PIXELS}),
    "mllama": (mllama, WRITTEN),
    "speecht5": (speech, {"input_values": SOUND, "decoder_input_ids": FEW}),
}  # fmt: skip


def lora(*targets: str, **fields: Any) -> peft.LoraConfig:
    return peft.LoraConfig(r=16, target_modules=list(targets), init_lora_weights=False, **fields)


def edit(folder: Path, **fields: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.fixture
def base(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Any]:
    torch.manual_seed(0)
    kind = str(request.param)
    model = MODELS[kind][0]()
    save_base(model, tmp_path / "base")
    return kind, type(model).from_pretrained(tmp_path / "base")


@pytest.mark.parametrize(
    ("base", "config"),
    [
        ("llama", lora("q_proj", modules_to_save=["mlp", "up_proj"])),
        ("bert", lora("query", modules_to_save=["embeddings"])),
        ("roberta", lora("query", modules_to_save=["dense"], task_type="SEQ_CLS")),
        ("mllama", lora("q_proj", modules_to_save=["embedding"])),
    ],
    indirect=["base"],
)
def test_a_saved_module_inside_another_is_refused(
    base: tuple[str, Any], config: peft.LoraConfig, tmp_path: Path
) -> None:
    kind, model = base
    save_trained(model, config, tmp_path / "tone")
    found = compare(type(model), MODELS[kind][1], tmp_path / "base", tmp_path / "tone")
    assert found.refusal is not None
    assert "peft_refuses" in found.codes
    assert found.ours is None


@pytest.mark.parametrize(
    ("base", "target"), [("bart", "q_proj"), ("roberta", "query"), ("gpt2", "c_attn")], indirect=["base"]
)
def test_replicated_layers_of_a_model_in_which_peft_finds_none_are_refused(
    base: tuple[str, Any], target: str, tmp_path: Path
) -> None:
    kind, model = base
    save_trained(model, lora(target), tmp_path / "tone")
    edit(tmp_path / "tone", layer_replication=[[0, 1]])
    found = compare(type(model), MODELS[kind][1], tmp_path / "base", tmp_path / "tone")
    assert found.refusal is not None
    assert "peft_refuses" in found.codes
    assert found.ours is None


@pytest.mark.parametrize(
    ("base", "target", "method"),
    [("bert", "query", peft.LoraConfig), ("llama", "q_proj", peft.AdaLoraConfig)],
    indirect=["base"],
)
def test_an_adapter_of_replicated_layers_is_merged(
    base: tuple[str, Any], target: str, method: Any, tmp_path: Path
) -> None:
    kind, model = base
    fields = {"layer_replication": [[0, 2], [1, 2]], "target_modules": [target]}
    fields |= {"total_step": 10, "init_r": 4} if method is peft.AdaLoraConfig else {}
    save_trained(model, method(**fields), tmp_path / "tone")
    found = compare(type(model), MODELS[kind][1], tmp_path / "base", tmp_path / "tone")
    assert found.live is not None
    assert not found.is_blocked, found.codes
    assert is_close(found.ours, found.live)


@pytest.mark.parametrize(
    ("base", "target", "fields"),
    [
        ("bert", "classifier", {"modules_to_save": ["encoder.layer"]}),
        ("convnext", "pwconv1", {"target_parameters": ["dwconv.weight"]}),
        ("bert", "classifier", {"target_parameters": ["query.bias"]}),
    ],
    indirect=["base"],
)
def test_a_list_of_layers_and_a_parameter_of_a_convolution_are_refused(
    base: tuple[str, Any], target: str, fields: dict[str, Any], tmp_path: Path
) -> None:
    kind, model = base
    save_trained(model, lora(target), tmp_path / "tone")
    edit(tmp_path / "tone", **fields)
    file = tmp_path / "tone" / "adapter_model.safetensors"
    weights = {f"base_model.model.{name}": value.clone() for name, value in model.state_dict().items()}
    saved = {name: value for name, value in weights.items() if ".encoder.layer." in name and kind == "bert"}
    saved = {name: value for name, value in saved.items() if "base_layer" not in name and "lora" not in name}
    save_file({**load_file(file), **saved}, file)
    found = compare(type(model), MODELS[kind][1], tmp_path / "base", tmp_path / "tone")
    assert found.refusal is not None
    assert "peft_refuses" in found.codes
    assert found.ours is None


@pytest.mark.parametrize("base", ["llama"], indirect=True)
def test_factors_of_a_parameter_under_another_name_are_reported(
    base: tuple[str, Any], tmp_path: Path
) -> None:
    """PEFT silently drops them."""
    kind, model = base
    save_trained(model, lora(target_parameters=["mlp.down_proj.weight"]), tmp_path / "tone")
    file = tmp_path / "tone" / "adapter_model.safetensors"
    renamed = {name.replace(".model.layers.", ".layers."): value for name, value in load_file(file).items()}
    save_file(renamed, file)
    edit(tmp_path / "tone", init_lora_weights=True)
    found = compare(type(model), MODELS[kind][1], tmp_path / "base", tmp_path / "tone")
    assert is_close(found.merged, found.base)  # PEFT's factors are 0 if the file lacks them
    assert "names_not_loaded" in found.codes


@pytest.mark.parametrize("base", ["llama"], indirect=True)
@pytest.mark.parametrize("names", [["experts.down_proj"], ["mlp.down_proj.weight", "experts.down_proj"]])
@pytest.mark.filterwarnings("ignore:target_parameters:RuntimeWarning")
def test_target_parameters_that_the_model_lacks_are_reported(
    base: tuple[str, Any], names: list[str], tmp_path: Path
) -> None:
    """PEFT warns if it finds none, and ignores one of several."""
    kind, model = base
    save_trained(model, lora("q_proj"), tmp_path / "tone")
    edit(tmp_path / "tone", target_parameters=names, init_lora_weights=True)
    found = compare(type(model), MODELS[kind][1], tmp_path / "base", tmp_path / "tone")
    assert "parameters_unknown" in found.codes
    assert not found.is_blocked
    assert is_close(found.ours, found.live)


@pytest.mark.parametrize("base", ["llama"], indirect=True)
@pytest.mark.parametrize("saved", ["A", "dropout", "default", "q_proj.base_layer"])
def test_a_saved_part_of_an_adapted_layer_is_refused(
    base: tuple[str, Any], saved: str, tmp_path: Path
) -> None:
    kind, model = base
    save_trained(model, lora("q_proj"), tmp_path / "tone")
    edit(tmp_path / "tone", modules_to_save=[saved])
    found = compare(type(model), MODELS[kind][1], tmp_path / "base", tmp_path / "tone")
    assert found.refusal is not None
    assert found.is_blocked, found.codes
    assert found.ours is None


@pytest.mark.parametrize("base", ["llama"], indirect=True)
def test_a_saved_base_layer_with_its_weight_is_merged(base: tuple[str, Any], tmp_path: Path) -> None:
    kind, model = base
    weights = {
        f"base_model.model.{name.removesuffix('weight')}base_layer.weight": torch.randn(value.shape)
        for name, value in model.state_dict().items()
        if name.endswith("q_proj.weight")
    }
    save_trained(model, lora("q_proj"), tmp_path / "tone")
    edit(tmp_path / "tone", modules_to_save=["base_layer"])
    file = tmp_path / "tone" / "adapter_model.safetensors"
    save_file({**load_file(file), **weights}, file)
    found = compare(type(model), MODELS[kind][1], tmp_path / "base", tmp_path / "tone")
    assert found.live is not None
    assert not found.is_blocked, found.codes
    assert is_close(found.ours, found.live)


@pytest.mark.parametrize(
    ("base", "config"),
    [
        ("roberta", lora("query", modules_to_save=["dense"])),
        ("bert", lora("query", modules_to_save=["output"])),
        ("mllama", lora("q_proj", modules_to_save=["tile_embedding"])),
        ("convnext", lora("dwconv")),
        ("wav2vec2", lora("pos_conv_embed.conv")),
        ("detr", lora("convolution")),
        ("speecht5", lora("lm_head")),
        ("speecht5", lora("q_proj", modules_to_save=["lm_head"])),
    ],
    indirect=["base"],
)
def test_an_adapter_that_peft_loads_completely_is_not_blocked(
    base: tuple[str, Any], config: peft.LoraConfig, tmp_path: Path
) -> None:
    kind, model = base
    save_trained(model, config, tmp_path / "tone")
    found = compare(type(model), MODELS[kind][1], tmp_path / "base", tmp_path / "tone")
    assert found.live is not None
    assert not torch.equal(found.live, found.base)
    assert not found.is_blocked, found.codes
    if found.ours is not None:
        assert is_close(found.ours, found.live)
    if found.merged is not None and kind != "detr":  # its names on disk are unknown here
        assert found.ours is not None


@pytest.mark.parametrize("base", ["marian"], indirect=True)
@pytest.mark.parametrize("saved", ["model.encoder.embed_tokens", "embed_tokens"])
def test_tying_of_an_input_embedding_that_is_tied_itself_is_refused(
    base: tuple[str, Any], saved: str, tmp_path: Path
) -> None:
    kind, model = base
    save_trained(model, lora("q_proj", modules_to_save=[saved]), tmp_path / "tone")
    written = tmp_path / "tone" / "adapter_config.json"
    written.write_text(json.dumps(json.loads(written.read_text()) | {"ensure_weight_tying": True}))
    found = compare(type(model), MODELS[kind][1], tmp_path / "base", tmp_path / "tone")
    # PEFT iterates over a set, so "embed_tokens" is refused or not depending on the hashes of texts
    assert found.refusal is not None or saved == "embed_tokens"
    assert "peft_refuses" in found.codes
    assert found.ours is None


@pytest.mark.parametrize("base", ["marian"], indirect=True)
def test_saved_positions_that_no_checkpoint_stores_must_be_in_the_file(
    base: tuple[str, Any], tmp_path: Path
) -> None:
    kind, model = base
    save_trained(model, lora("q_proj"), tmp_path / "tone")
    edit(tmp_path / "tone", modules_to_save=["embed_positions"])
    found = compare(type(model), MODELS[kind][1], tmp_path / "base", tmp_path / "tone")
    assert found.refusal is not None
    assert "peft_refuses" in found.codes


@pytest.mark.parametrize("base", ["marian"], indirect=True)
def test_rows_of_an_input_embedding_that_is_tied_itself_are_refused(
    base: tuple[str, Any], tmp_path: Path
) -> None:
    kind, model = base
    save_trained(model, peft.TrainableTokensConfig(token_indices=[3, 4]), tmp_path / "tone")
    found = compare(type(model), MODELS[kind][1], tmp_path / "base", tmp_path / "tone")
    assert found.live is None
    assert "peft_refuses" in found.codes


@pytest.mark.parametrize(
    ("base", "key"),
    [
        ("bert_mlm", "lm_head.weight"),
        ("t5_encoder", "lm_head.weight"),
        ("bart", "model.embed_tokens.weight"),
    ],
    indirect=["base"],
)
def test_a_weight_under_a_name_that_only_other_models_have_is_not_mistaken_for_a_tied_weight(
    base: tuple[str, Any], key: str, tmp_path: Path
) -> None:
    kind, model = base
    target = {"bert_mlm": "query", "t5_encoder": "q", "bart": "q_proj"}[kind]
    save_trained(model, lora(target), tmp_path / "tone")
    file = tmp_path / "tone" / "adapter_model.safetensors"
    save_file({**load_file(file), f"base_model.model.{key}": torch.randn(32, 16)}, file, {"format": "pt"})
    found = compare(type(model), MODELS[kind][1], tmp_path / "base", tmp_path / "tone")
    assert found.refusal is None  # PEFT drops it
    assert found.is_blocked
    assert found.ours is None


@pytest.mark.parametrize("base", ["llama"], indirect=True)
def test_a_field_that_the_method_lacks_is_ignored_as_peft_ignores_it(
    base: tuple[str, Any], tmp_path: Path
) -> None:
    kind, model = base
    save_trained(model, peft.HRAConfig(r=4, target_modules=["q_proj"]), tmp_path / "tone")
    written = tmp_path / "tone" / "adapter_config.json"
    more = {"trainable_token_indices": [1, 2], "ensure_weight_tying": True}
    written.write_text(json.dumps(json.loads(written.read_text()) | more))
    found = compare(type(model), MODELS[kind][1], tmp_path / "base", tmp_path / "tone")
    assert found.refusal is None
    assert not found.is_blocked, found.codes
    assert is_close(found.ours, found.live)


@pytest.mark.parametrize("base", ["bert"], indirect=True)
def test_an_addition_to_a_bias_with_another_shape_is_found(base: tuple[str, Any], tmp_path: Path) -> None:
    kind, model = base
    save_trained(model, peft.BeftConfig(target_modules=["query"]), tmp_path / "tone")
    file = tmp_path / "tone" / "adapter_model.safetensors"
    tensors = load_file(file)
    first = min(tensors)
    save_file({**tensors, first: tensors[first].repeat(2, 1)}, file, {"format": "pt"})
    found = compare(type(model), MODELS[kind][1], tmp_path / "base", tmp_path / "tone")
    assert found.refusal is not None
    assert "shape_mismatch" in found.codes


@pytest.mark.parametrize("start", ["olora", "pissa"])
@pytest.mark.parametrize("base", ["convnext"], indirect=True)
def test_factors_of_a_weight_that_is_smaller_than_the_rank_are_not_blocked(
    base: tuple[str, Any], start: str, tmp_path: Path
) -> None:
    kind, model = base
    config = peft.LoraConfig(r=8, target_modules=["classifier"], init_lora_weights=start)
    save_trained(model, config, tmp_path / "tone")
    found = compare(type(model), MODELS[kind][1], tmp_path / "base", tmp_path / "tone")
    assert found.refusal is None
    assert not found.is_blocked, found.codes
    assert is_close(found.ours, found.live)


@pytest.mark.parametrize("base", ["detr"], indirect=True)
def test_a_saved_name_that_ends_the_name_of_an_adapted_module_is_refused(
    base: tuple[str, Any], tmp_path: Path
) -> None:
    kind, model = base
    save_trained(model, lora("class_labels_classifier"), tmp_path / "tone")
    edit(tmp_path / "tone", modules_to_save=["classifier"])
    found = compare(type(model), MODELS[kind][1], tmp_path / "base", tmp_path / "tone")
    assert found.refusal is not None
    assert "TypeError" in found.refusal
    assert "config_refused" in found.codes
    assert found.ours is None


@pytest.mark.parametrize("base", ["detr"], indirect=True)
def test_biases_of_renamed_modules_are_not_called_missing(base: tuple[str, Any], tmp_path: Path) -> None:
    kind, model = base
    save_trained(model, lora("self_attn.k_proj", "mlp.fc2", bias="lora_only"), tmp_path / "tone")
    found = compare(type(model), MODELS[kind][1], tmp_path / "base", tmp_path / "tone")
    assert found.refusal is None
    assert not found.is_blocked
    assert "module_renamed" in found.codes
    assert found.ours is None  # because it is unknown where they belong


@pytest.mark.parametrize("base", ["bert"], indirect=True)
def test_directions_of_a_weight_without_small_ones_may_be_empty(
    base: tuple[str, Any], tmp_path: Path
) -> None:
    kind, model = base  # its classifier has two rows
    config = peft.OSFConfig(effective_rank=4, target_modules=["query", "classifier"])
    save_trained(model, config, tmp_path / "tone")
    found = compare(type(model), MODELS[kind][1], tmp_path / "base", tmp_path / "tone")
    assert found.live is not None
    assert not found.is_blocked
    assert is_close(found.ours, found.live)


@pytest.mark.parametrize("fields", [{"qalora_group_size": {}}, {"revision": {}}])
@pytest.mark.parametrize("base", ["llama"], indirect=True)
def test_a_field_that_peft_does_not_use_may_hold_anything(
    base: tuple[str, Any], fields: dict[str, Any], tmp_path: Path
) -> None:
    kind, model = base
    save_trained(model, lora("q_proj"), tmp_path / "tone")
    edit(tmp_path / "tone", **fields)
    found = compare(type(model), MODELS[kind][1], tmp_path / "base", tmp_path / "tone")
    assert found.live is not None
    assert not found.is_blocked
    assert is_close(found.ours, found.live)
