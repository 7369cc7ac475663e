"""Runs in a separate environment with diffusers: makes its LoRA files, and reports how diffusers reads them.

python diffusers_library.py make FOLDER     each pipeline and way to write: FOLDER/<pipeline>[-<way>]
python diffusers_library.py loaded PIPELINE ADAPTER…     a line of JSON: of each adapter the scale of every
    module that got one, as the live layers have it, and the outputs of one step; or why it was refused
python diffusers_library.py fused ADAPTER…       the pipeline with each of <pipeline>-<way> fused:
ADAPTER-fused python diffusers_library.py merged ADAPTER…      PEFT's merge of each <pipeline>-<way>-<part>:
ADAPTER/merged
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import diffusers
import peft
import torch
import transformers
from diffusers.training_utils import _collate_lora_metadata
from diffusers.utils import convert_state_dict_to_diffusers, convert_state_dict_to_kohya
from safetensors.torch import load_file, save_file

FILE = "pytorch_lora_weights.safetensors"
ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
CONVOLUTIONS = [*ATTENTION, "conv1", "conv2", "proj_in"]
WORDS = ["q_proj", "v_proj", "out_proj", "fc1"]
Tensors = Mapping[str, torch.Tensor]


def text_encoder(kind: type[Any]) -> Any:
    config = transformers.CLIPTextConfig(
        hidden_size=32, intermediate_size=37, num_attention_heads=4, num_hidden_layers=2, vocab_size=100,
        projection_dim=32, max_position_embeddings=16,
    )  # fmt: skip
    return kind(config)


def unet(**fields: Any) -> Any:
    return diffusers.UNet2DConditionModel(
        sample_size=8, block_out_channels=(32, 64), layers_per_block=1, norm_num_groups=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), attention_head_dim=8,
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), **fields,
    )  # fmt: skip


def components(kind: str) -> dict[str, Any]:
    """The parts of a pipeline that can have a LoRA, with seeded random weights."""
    torch.manual_seed(0)
    if kind == "sd":
        encoder = text_encoder(transformers.CLIPTextModel)
        return {"unet": unet(cross_attention_dim=32), "text_encoder": encoder}
    if kind == "sdxl":
        added = {"addition_embed_type": "text_time", "addition_time_embed_dim": 8}
        return {
            "unet": unet(cross_attention_dim=64, projection_class_embeddings_input_dim=80, **added),
            "text_encoder": text_encoder(transformers.CLIPTextModel),
            "text_encoder_2": text_encoder(transformers.CLIPTextModelWithProjection),
        }
    transformer = diffusers.FluxTransformer2DModel(
        patch_size=1, in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=32, pooled_projection_dim=32, axes_dims_rope=(4, 4, 8),
    )  # fmt: skip
    return {"transformer": transformer, "text_encoder": text_encoder(transformers.CLIPTextModel)}


def pipeline(kind: str, parts: Mapping[str, Any]) -> Any:
    """A pipeline of these parts; parts that have no LoRA are left out."""
    none = dict.fromkeys(["vae", "tokenizer"])
    if kind == "sd":
        beside = dict.fromkeys(["safety_checker", "feature_extractor"])
        scheduler = diffusers.DDIMScheduler()
        return diffusers.StableDiffusionPipeline(
            **parts, **none, **beside, scheduler=scheduler, requires_safety_checker=False
        )
    if kind == "sdxl":
        return diffusers.StableDiffusionXLPipeline(
            **parts, **none, tokenizer_2=None, scheduler=diffusers.DDIMScheduler()
        )
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    return diffusers.FluxPipeline(**parts, **none, text_encoder_2=None, tokenizer_2=None, scheduler=scheduler)


def trained(kind: str, targets: list[str], **fields: Any) -> dict[str, Any]:
    """The parts, each with a LoRA of rank 4 and alpha 6 with random weights."""
    parts = components(kind)
    settings: dict[str, Any] = {"r": 4, "lora_alpha": 6, **fields}
    torch.manual_seed(1)
    for name, model in parts.items():
        words = WORDS if name.startswith("text") else targets
        peft.inject_adapter_in_model(peft.LoraConfig(target_modules=words, **settings), model)
        for key, parameter in model.named_parameters():
            if "lora_" in key:
                torch.nn.init.normal_(parameter, mean="magnitude" in key, std=0.1)
    return parts


def state(model: Any) -> Tensors:
    found: Tensors = peft.get_peft_model_state_dict(model)
    return found


def saved(folder: Path, kind: str, parts: Mapping[str, Any], *, metadata: bool, names: str = "peft") -> None:
    """Saves like the training scripts of diffusers: with its own function, with or without the configs."""
    for model in parts.values():
        model.peft_config = {"default": model.peft_config["default"]}
    translate = convert_state_dict_to_diffusers if names == "diffusers" else dict
    layers = {f"{name}_lora_layers": translate(state(model)) for name, model in parts.items()}
    configs = _collate_lora_metadata(parts) if metadata else {}
    type(pipeline(kind, components(kind))).save_lora_weights(folder, **layers, **configs)


def of_processors(folder: Path, kind: str) -> None:
    """Names as until diffusers 0.17, when attention processors owned the factors."""
    saved(folder, kind, trained(kind, ATTENTION), metadata=False)
    old = {
        key.replace(".to_out.0.", ".to_out.")
        .replace(".to_", ".processor.to_")
        .replace(".lora_A.", "_lora.down.")
        .replace(".lora_B.", "_lora.up."): tensor
        for key, tensor in load_file(folder / FILE).items()
        if key.startswith("unet.")
    }
    save_file(old, folder / FILE, {"format": "pt"})


def with_alphas(folder: Path, kind: str) -> None:
    """Adds alphas as tensors next to diffusers' own names, as some trainers do."""
    saved(folder, kind, trained(kind, ATTENTION), metadata=False)
    tensors = load_file(folder / FILE)
    alphas = {key.replace("lora_A.weight", "alpha"): torch.tensor(6.0) for key in tensors if "lora_A" in key}
    save_file({**tensors, **alphas}, folder / FILE, {"format": "pt"})


def kohya(folder: Path, kind: str, targets: list[str], **fields: Any) -> None:
    """Writes like sd-scripts' networks/lora.py: flat names, an alpha for each module, facts as text."""
    prefixes = {"unet": "lora_unet", "text_encoder": "lora_te" if kind == "sd" else "lora_te1"}
    tensors: dict[str, torch.Tensor] = {}
    for part, model in trained(kind, targets, **fields).items():
        named = {
            key.replace("lora_A", "lora_down").replace("lora_B", "lora_up"): t
            for key, t in state(model).items()
        }
        for key, tensor in named.items():
            path, role = key.split(".lora_")
            inside = path if part == "unet" else f"text_model.{path.removeprefix('text_model.')}"
            flat = f"{prefixes.get(part, 'lora_te2')}_{inside.replace('.', '_')}"
            tensors[f"{flat}.lora_{role}"] = tensor
            tensors[f"{flat}.alpha"] = torch.tensor(6.0 if part == "unet" else 2.0)
    facts = {"ss_network_module": "networks.lora", "ss_network_dim": "4", "ss_network_alpha": "6.0"}
    folder.mkdir()
    save_file(tensors, folder / "style.safetensors", facts)


def original_name(name: str) -> str:
    """The original code's name of a UNet module, for blocks of one layer, as here."""
    place = {"resnets": 0, "attentions": 1}
    down, up, mid = (
        re.compile(rf"(.+_){way}_(?:blocks_(\d)_)?(resnets|attentions)_(\d)_(.+)")
        for way in ("down", "up", "mid_block")
    )
    if match := mid.fullmatch(name):
        begin, _, kind, layer, rest = match.groups()
        name = f"{begin}middle_block_{1 if kind == 'attentions' else 2 * int(layer)}_{rest}"
    for way, pattern, first in (("input", down, 1), ("output", up, 0)):
        if match := pattern.fullmatch(name):
            begin, block, kind, layer, rest = match.groups()
            name = f"{begin}{way}_blocks_{2 * int(block) + first + int(layer)}_{place[kind]}_{rest}"
    if "_attn" in name or "_blocks_" not in name.replace("middle_block_", "_blocks_"):
        return name
    return name.replace("_conv1.", "_in_layers_2.").replace("_conv2.", "_out_layers_3.")


def original(folder: Path, kind: str) -> None:
    """Writes like sd-scripts for SDXL, which it trains on the original code; blocks have one layer here."""
    kohya(folder, kind, CONVOLUTIONS)
    tensors = {original_name(name): t for name, t in load_file(folder / "style.safetensors").items()}
    save_file(tensors, folder / "style.safetensors", {"ss_network_module": "networks.lora"})


def converted(folder: Path, kind: str) -> None:
    """Converts to kohya's names by diffusers' own function, which writes alphas as whole numbers."""
    layers = {f"unet.{key}": tensor for key, tensor in state(trained(kind, ATTENTION)["unet"]).items()}
    folder.mkdir()
    save_file(convert_state_dict_to_kohya(layers), folder / "style.safetensors")


PATTERNS = {"rank_pattern": {"to_k": 2}, "alpha_pattern": {"to_q": 16}}
WAYS: dict[str, Callable[[Path, str], None]] = {
    "plain": lambda folder, kind: saved(folder, kind, trained(kind, ATTENTION), metadata=False),
    "older": lambda folder, kind: saved(
        folder, kind, trained(kind, ATTENTION), metadata=False, names="diffusers"
    ),
    "metadata": lambda folder, kind: saved(folder, kind, trained(kind, ATTENTION), metadata=True),
    "patterns": lambda folder, kind: saved(folder, kind, trained(kind, ATTENTION, **PATTERNS), metadata=True),
    "rslora": lambda folder, kind: saved(
        folder, kind, trained(kind, ATTENTION, use_rslora=True), metadata=True
    ),
    "conv": lambda folder, kind: saved(folder, kind, trained(kind, CONVOLUTIONS), metadata=True),
    "dora": lambda folder, kind: saved(folder, kind, trained(kind, ATTENTION, use_dora=True), metadata=True),
    "processors": of_processors,
    "alphas": with_alphas,
    "kohya": lambda folder, kind: kohya(folder, kind, ATTENTION),
    "locon": lambda folder, kind: kohya(folder, kind, CONVOLUTIONS),
    "converted": converted,
    "original": original,
}
OF_A_UNET = ("processors", "kohya", "locon", "converted", "original")


def make(folder: Path) -> None:
    for kind in ("sd", "sdxl", "flux"):
        pipeline(kind, components(kind)).save_pretrained(folder / kind)
        for way, write in WAYS.items():
            if kind != "flux" or way not in OF_A_UNET:
                write(folder / f"{kind}-{way}", kind)


def step(kind: str, parts: Mapping[str, Any]) -> list[Any]:
    """One denoising step, from token ids to the noise."""
    torch.manual_seed(2)
    noise, ids = torch.randn(1, 4, 8, 8), torch.arange(1, 9)[None]
    with torch.no_grad():
        words = {name: model(ids) for name, model in parts.items() if name.startswith("text")}
        hidden = [told.last_hidden_state for told in words.values()]
        if kind == "flux":
            grid = torch.zeros(64, 3)
            told = parts["transformer"](
                noise.reshape(1, 64, 4),
                hidden[0],
                hidden[0].mean(1),
                torch.tensor([0.5]),
                grid,
                torch.zeros(8, 3),
            )
        else:
            added = {}
            if kind == "sdxl":
                added = {"text_embeds": words["text_encoder_2"].text_embeds, "time_ids": torch.ones(1, 6)}
            told = parts["unet"](noise, 5, torch.cat(hidden, -1), added_cond_kwargs=added)
    found: list[Any] = told.sample.flatten().tolist()
    return found


def loaded(kind: str, adapter: Path) -> dict[str, Any]:
    """The scales and outputs; if diffusers refuses the file, only its message."""
    parts = components(kind)
    (weights,) = adapter.glob("*.safetensors")
    try:
        pipeline(kind, parts).load_lora_weights(adapter, weight_name=weights.name)
    except Exception as error:  # noqa: BLE001  # whatever it raises is its answer
        return {"refused": f"{type(error).__name__}: {error}"[:400]}
    scales = {
        f"{part}.{path}": float(module.scaling[module.active_adapters[0]])
        for part, model in parts.items()
        for path, module in model.eval().named_modules()
        if isinstance(module, peft.tuners.lora.LoraLayer) and module.active_adapters
    }
    return {"scales": scales, "step": step(kind, parts)}


def fused(kind: str, adapter: Path) -> None:
    """Fuses by `load_lora_weights` and `fuse_lora`."""
    parts = components(kind)
    whole = pipeline(kind, parts)
    (weights,) = adapter.glob("*.safetensors")
    whole.load_lora_weights(adapter, weight_name=weights.name)
    whole.fuse_lora(components=[name for name, part in parts.items() if hasattr(part, "peft_config")])
    whole.unload_lora_weights()
    whole.save_pretrained(f"{adapter}-fused")


def merged(part: str, folder: Path, adapter: Path) -> None:
    """PEFT's own merge of its folder into a part's model: ADAPTER/merged."""
    kinds = {"text_encoder": transformers.CLIPTextModel, "unet": diffusers.UNet2DConditionModel}
    kinds["text_encoder_2"] = transformers.CLIPTextModelWithProjection
    kinds["transformer"] = diffusers.FluxTransformer2DModel
    model = kinds[part].from_pretrained(folder)
    peft.PeftModel.from_pretrained(model, adapter).merge_and_unload().save_pretrained(adapter / "merged")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["make", folder]:
            make(Path(folder))
        case ["loaded", kind, *those]:
            print(json.dumps([loaded(kind, Path(adapter)) for adapter in those]))
        case ["fused", *those]:
            for adapter in map(Path, those):
                fused(adapter.name.partition("-")[0], adapter)
        case ["merged", *those]:
            for adapter in map(Path, those):
                kind, _, part = adapter.name.split("-")
                merged(part, adapter.parent / kind / part, adapter)
