"""Adapters that are understood only by following PEFT's way of reading a file and a model, compared with
PEFT.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")

import torch
from safetensors.torch import load_file

from .corpus import cases, make
from .families import FAMILIES
from .mutations import PREFIX, Files
from .peft_comparison import ask_peft, ask_us, verdict, write


def without_prefix(files: Files) -> None:
    files.tensors = {name.removeprefix(PREFIX): value for name, value in files.tensors.items()}


def half_without_prefix(files: Files) -> None:
    files.tensors = {
        name.removeprefix(PREFIX) if ".0." in name else name: value for name, value in files.tensors.items()
    }


def on_all_linear_layers(files: Files) -> None:
    files.config["target_modules"] = "all-linear"


def in_proportion(files: Files) -> None:
    files.config["proportional_parameters"] = True


def as_fp8(files: Files) -> None:
    files.tensors = {
        name: value.to(torch.float8_e4m3fn) if value.is_floating_point() else value
        for name, value in files.tensors.items()
    }


def in_proportion_throughout(files: Files) -> None:
    in_proportion(files)
    shares = {"q_proj": 20, "k_proj": 10, "down_proj": 30}  # 20 each, by the 1,024, 512 and 1,536 elements
    files.tensors = {
        name: torch.randn(next(count for end, count in shares.items() if end in name))
        for name in files.tensors
    }


def excluding_the_norms(files: Files) -> None:
    files.config["exclude_modules"] = r".*\.input_layernorm"


def with_a_wider_shared_matrix(files: Files) -> None:
    name = "base_model.pvera_A"
    files.tensors[name] = torch.cat([files.tensors[name], files.tensors[name][:, :1]], dim=1)


def with_a_taller_base(files: Files) -> None:
    for name in [name for name in files.tensors if name.endswith("randlora_B")]:
        files.tensors[name] = torch.cat([files.tensors[name], files.tensors[name][:1]])


def with_a_wider_base(files: Files) -> None:
    for name in [name for name in files.tensors if name.endswith("randlora_A")]:
        files.tensors[name] = torch.cat([files.tensors[name], files.tensors[name][:, :, :1]], dim=2)


def with_one_more_base(files: Files) -> None:
    for name in [name for name in files.tensors if name.endswith("randlora_B")]:
        files.tensors[name] = torch.cat([files.tensors[name], files.tensors[name][:, :1]], dim=1)


def of_another_number_of_vectors(files: Files) -> None:
    files.config["num_vectors"] += 1


def named_inside(files: Files) -> None:
    files.tensors = {
        re.sub(r"(\.lora_[^.]+)", r"\1.default", name): value for name, value in files.tensors.items()
    }


def without_a_drawn_projection(files: Files) -> None:
    files.config["projection_prng_key"] = 7
    files.tensors = {name: value for name, value in files.tensors.items() if not name.endswith("vera_B")}


def with_a_rank_for_some_modules(files: Files) -> None:
    files.config["rank_pattern"] = {"q_proj": files.config["r"] * 2}


def with_a_rank_for_all_modules(files: Files) -> None:
    files.config["rank_pattern"] = {".*": files.config["r"]}
    files.config["r"] *= 2


def with_the_embedding_saved_too(files: Files) -> None:
    name = "model.embed_tokens.weight"
    files.config["modules_to_save"] = ["embed_tokens"]
    files.tensors[PREFIX + name] = torch.randn(files.base[name].shape)


def with_a_projector_by_its_name_on_disk(files: Files) -> None:
    name = "multi_modal_projector.linear_1"
    shape = next(value.shape for key, value in files.base.items() if key.endswith(f"{name}.weight"))
    files.tensors[f"{PREFIX}{name}.base_layer.weight"] = torch.randn(shape)


def without_its_rank(files: Files) -> None:
    del files.config["r"]


def without_an_update(files: Files) -> None:
    files.config["alpha" if "alpha" in files.config else "lora_alpha"] = 0


def listing_saved_modules(files: Files) -> None:
    files.config["modules_to_save"] = ["embed_tokens", "lm_head"]


def saving_a_pattern(files: Files) -> None:
    files.config["modules_to_save"] = ["[ko]_proj"]


def of_another_first_rank(files: Files) -> None:
    files.config["init_r"] += 1


def cut_to_one_rank(files: Files) -> None:
    keeps = [True] + [False] * (files.config["init_r"] - 1)
    files.config["rank_pattern"] = {"model.layers.0.self_attn.q_proj.lora_E": keeps}


def without_feedforward_modules(files: Files) -> None:
    files.config["feedforward_modules"] = None


def of_layers_by_a_pattern(files: Files) -> None:
    files.config |= {"layers_to_transform": [0, 1], "layers_pattern": "(?:lay.*|h)"}


def of_layers_by_another_alternative(files: Files) -> None:
    files.config |= {
        "layers_to_transform": [0, 1],
        "layers_pattern": "layers|h",
    }  # no number after the first match


def without_patterns(files: Files) -> None:
    files.config |= {key: None for key in ("rank_pattern", "alpha_pattern") if key in files.config}


def listing_a_container(files: Files) -> None:
    files.config["target_modules"] += ["mlp"]


def listing_the_norms(files: Files) -> None:
    files.config["target_modules"] += ["input_layernorm"]


def by_a_pattern_of_containers_too(files: Files) -> None:
    files.config["target_modules"] = r"model\.layers.*"


def with_a_tower_by_its_name_on_disk(files: Files) -> None:
    files.tensors = {
        name.replace("model.vision_tower.", "vision_tower."): value for name, value in files.tensors.items()
    }


def with_a_tower_by_its_old_name(files: Files) -> None:
    files.tensors = {
        name.replace("model.vision_tower.", "vision_tower.vision_model."): value
        for name, value in files.tensors.items()
    }


def listing_the_router(files: Files) -> None:
    files.config["target_modules"] = [*(files.config["target_modules"] or []), "gate"]


def targeting_one_of_two_parameters(files: Files) -> None:
    files.config["target_parameters"] = ["experts.down_proj"]


def targeting_a_weight_of_its_modules(files: Files) -> None:
    files.config["target_parameters"] = ["q_proj.weight"]


def with_one_row_as_a_number(files: Files) -> None:
    files.config["trainable_token_indices"] = 1


def dropping_out_twice(files: Files) -> None:
    files.config[next(key for key in files.config if key.endswith("dropout"))] = 2.0


def listing_an_activation(files: Files) -> None:
    files.config["target_modules"] = [*files.config["target_modules"], "act_fn"]


def listing_the_rotary_embedding(files: Files) -> None:
    files.config["target_modules"] = [*files.config["target_modules"], "rotary_emb"]


def listing_a_dropout_by_a_pattern(files: Files) -> None:
    files.config["target_modules"] = r".*(query|value|intermediate\.dense|output\.dropout)"


def with_a_bias_inside_a_module_that_it_does_not_adapt(files: Files) -> None:
    name = "base_model.model.bert.encoder.layer.1.attention.self.key.base_layer.bias"
    files.tensors[name] = torch.ones(32)


def keeping_more_directions_by_a_pattern(files: Files) -> None:
    files.config["rank_pattern"] = {r".*\.0\..*query": 5}


def keeping_more_directions_by_a_pattern_with_a_flag(files: Files) -> None:
    files.config["rank_pattern"] = {r"(?i)Q[UV]ERY": 5}


def keeping_more_directions_by_a_pattern_that_matches_nothing(files: Files) -> None:
    files.config["rank_pattern"] = {r".*\.7\..*query": 5}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("corpus")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "change", "is_blocked"),
    [
        ("lora-plain-llava-fp32", without_prefix, False),
        ("lora-experts-qwen2_moe-fp32", half_without_prefix, False),
        ("lora-plain-llama-fp32", without_prefix, True),
        ("road-road_1-qwen2_moe-fp32", on_all_linear_layers, True),
        ("waveft-plain-llama-fp32", in_proportion, True),
        ("waveft-plain-llama-fp32", in_proportion_throughout, False),
        ("frod-plain-llama-fp32", as_fp8, False),
        ("ln_tuning-plain-llama-fp32", excluding_the_norms, True),
        ("loha-plain-conv1d-fp32", on_all_linear_layers, True),
        ("pvera-plain-llama-fp32", with_a_wider_shared_matrix, True),
        ("randlora-plain-llama-fp32", with_a_taller_base, True),
        ("randlora-plain-llama-fp32", with_a_wider_base, True),
        ("randlora-plain-llama-fp32", with_one_more_base, True),
        ("vblora-plain-llama-fp32", of_another_number_of_vectors, True),
        ("lora-dora-llava-fp32", named_inside, False),
        ("lora-tokens-llama-fp32", with_the_embedding_saved_too, True),
        ("vera-plain-gpt2-fp32", without_a_drawn_projection, False),
        ("pvera-plain-llama-fp32", without_a_drawn_projection, False),
        ("hira-plain-llama-fp32", with_a_rank_for_some_modules, False),
        ("hira-plain-llama-fp32", with_a_rank_for_all_modules, True),
        ("delora-plain-llama-fp32", with_a_rank_for_some_modules, True),
        ("trainable_tokens-plain-llama-fp32", listing_saved_modules, False),
        ("hra-gram-schmidt-bert-fp32", without_its_rank, True),
        ("lora-dora-conv3d-fp32", without_an_update, False),
        ("lora-plain-llama-fp32", without_an_update, True),
        ("loha-plain-qwen2_moe-fp32", without_an_update, True),
        ("lokr-plain-llama-fp32", without_an_update, True),
        ("lora-plain-llava-fp32", with_a_projector_by_its_name_on_disk, True),
        ("lora-plain-llama-fp32", saving_a_pattern, True),
        ("adalora-plain-llama-fp32", of_another_first_rank, True),
        ("adalora-plain-llama-fp32", cut_to_one_rank, True),
        ("lora-plain-llama-fp32", listing_a_container, True),
        ("loha-plain-llama-fp32", listing_the_norms, True),
        ("lora-plain-llama-fp32", listing_an_activation, True),
        ("loha-plain-llama-fp32", listing_an_activation, True),
        ("ia3-plain-llama-fp32", listing_the_rotary_embedding, True),
        ("oft-plain-llama-fp32", listing_an_activation, True),
        ("vera-plain-llama-fp32", listing_the_rotary_embedding, True),
        ("osf-plain-llama-fp32", listing_an_activation, False),
        ("osf-plain-bert-fp32", keeping_more_directions_by_a_pattern, True),
        ("osf-plain-bert-fp32", keeping_more_directions_by_a_pattern_with_a_flag, True),
        ("osf-plain-bert-fp32", keeping_more_directions_by_a_pattern_that_matches_nothing, False),
        ("trainable_tokens-plain-bert-fp32", with_a_bias_inside_a_module_that_it_does_not_adapt, True),
        ("lora-plain-gpt2-fp32", listing_an_activation, False),  # it does not have this
        ("lora-plain-bert-fp32", listing_a_dropout_by_a_pattern, True),
        ("lora-plain-llama-fp32", by_a_pattern_of_containers_too, True),
        ("lora-plain-llama-fp32", targeting_a_weight_of_its_modules, True),
        ("lora-plain-llava-fp32", with_a_tower_by_its_name_on_disk, True),
        ("lora-plain-llava-fp32", with_a_tower_by_its_old_name, False),
        ("lora-plain-qwen2_moe-fp32", listing_the_router, True),
        ("lora-experts-qwen2_moe-fp32", targeting_one_of_two_parameters, True),
        ("lora-tokens-llama-fp32", with_one_row_as_a_number, True),
        ("lora-plain-llama-fp32", dropping_out_twice, True),
        ("lora-plain-llama-fp32", without_patterns, True),
        ("loha-plain-llama-fp32", without_patterns, True),
        ("delora-plain-llama-fp32", without_patterns, True),
        ("hira-plain-llama-fp32", without_patterns, True),
        ("adalora-plain-llama-fp32", without_patterns, False),
        ("ia3-feed-forward-llama-fp32", without_feedforward_modules, False),
        ("ia3-plain-llama-fp32", without_feedforward_modules, True),
        ("ia3-plain-qwen2_moe-fp32", without_feedforward_modules, True),
        ("lora-plain-llama-fp32", of_layers_by_a_pattern, False),
        ("lora-plain-llama-fp32", of_layers_by_another_alternative, True),
    ],
)
def test_peft_reads_an_adapter_as_our_binding_predicts(
    case: str, change: Callable[[Files], None], is_blocked: bool, tmp_path: Path, corpus: Path
) -> None:
    (wanted,) = [one for one in cases(dtypes=["fp32"]) if str(one) == case]
    made = make(wanted, corpus)
    files = Files(
        load_file(made.adapter / "adapter_model.safetensors"),
        json.loads((made.adapter / "adapter_config.json").read_text()),
        load_file(made.base / "model.safetensors"),
    )
    change(files)
    adapter = write(tmp_path / "adapter", files.tensors, files.config)
    family = FAMILIES[wanted.family]
    ours = ask_us(made.base, adapter, tmp_path / "merged")
    assert bool(ours.blocked) is is_blocked, ours.blocked
    assert verdict(family, ask_peft(family, made.base, adapter), ours) is None
