"""Runs in a separate environment with the `adapters` library: makes its adapters, and runs models with them.

python adapterhub_library.py make FOLDER     each model and config: FOLDER/<model>[-<config>]
python adapterhub_library.py answers FOLDER MODEL ADAPTER…    the logits with each, as a line of JSON
python adapterhub_library.py merged FOLDER MODEL ADAPTER…     its merge of each: ADAPTER/merged.safetensors
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import adapters
import torch
import transformers
from safetensors.torch import save_file

CONFIGS: dict[str, Any] = {
    "seq_bn": "seq_bn",
    "double_seq_bn": "double_seq_bn",
    "par_bn": "par_bn",
    "seq_bn_inv": "seq_bn_inv",
    "leave_out": adapters.SeqBnConfig(reduction_factor=4, leave_out=[0]),
    "learned_scaling": adapters.SeqBnConfig(reduction_factor=4, scaling="learned"),
    "gated": adapters.SeqBnConfig(reduction_factor=4, use_gating=True),
    "compacter": adapters.CompacterConfig(phm_dim=4, reduction_factor=2),
    "compacter++": adapters.CompacterPlusPlusConfig(phm_dim=4, reduction_factor=2),
    "lora": "lora",
    "lora_everywhere": adapters.LoRAConfig(
        r=4, alpha=6, intermediate_lora=True, output_lora=True, attn_matrices=["q", "k", "v"], leave_out=[1]
    ),
    "lora_gated": adapters.LoRAConfig(r=4, use_gating=True),
    "dora": adapters.DoRAConfig(r=4),
    "ia3": "ia3",
    "loreft": "loreft",
    "prompt": adapters.PromptTuningConfig(prompt_length=5),
    "prefix": adapters.PrefixTuningConfig(prefix_length=5, bottleneck_size=8),
    "prefix_flat": adapters.PrefixTuningConfig(flat=True, prefix_length=5),
    "mam": adapters.MAMConfig(),
    "unipelt": adapters.UniPELTConfig(),
}
PICKLED = ("prefix", "prefix_flat", "mam", "unipelt")


def model_of(kind: str) -> Any:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 96}
    if kind == "bert":
        config = transformers.BertConfig(hidden_size=32, intermediate_size=64, num_labels=3, **sizes)
        return transformers.BertForSequenceClassification(config).eval()
    llama = transformers.LlamaConfig(hidden_size=64, intermediate_size=160, num_key_value_heads=2, **sizes)
    return transformers.LlamaForCausalLM(llama).eval()


def make(folder: Path) -> None:
    for kind in ("bert", "llama"):
        model_of(kind).save_pretrained(folder / kind)
        for name, config in CONFIGS.items():
            if (kind, name) == ("llama", "prompt"):
                continue  # the library has none for it
            model = model_of(kind)
            adapters.init(model)
            model.add_adapter("tone", config=config)
            for key, parameter in model.named_parameters():
                if ".tone." in key:
                    torch.nn.init.normal_(parameter, std=0.1)
            # It can only pickle tensors that share memory, such as those of a prefix.
            model.save_adapter(folder / f"{kind}-{name}", "tone", use_safetensors=name not in PICKLED)


def answers(folder: Path, kind: str, adapter: str) -> list[Any]:
    model = type(model_of(kind)).from_pretrained(folder / kind)
    adapters.init(model)
    is_safe = Path(adapter, "adapter.safetensors").exists()
    model.set_active_adapters(model.load_adapter(adapter, use_safetensors=is_safe))
    model.eval()
    with torch.no_grad():
        found: list[Any] = model(input_ids=torch.arange(1, 9)[None]).logits.tolist()
    return found


def merged(folder: Path, kind: str, adapter: Path) -> None:
    """The weights of the model after `merge_adapter`, by the names of the base."""
    model = type(model_of(kind)).from_pretrained(folder / kind)
    names = list(model.state_dict())
    adapters.init(model)
    model.merge_adapter(model.load_adapter(str(adapter), use_safetensors=True))
    weights = model.state_dict()
    save_file({name: weights[name].clone() for name in names}, adapter / "merged.safetensors")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["make", folder]:
            make(Path(folder))
        case ["answers", folder, kind, *those]:
            print(json.dumps([answers(Path(folder), kind, adapter) for adapter in those]))
        case ["merged", folder, kind, *those]:
            for adapter in those:
                merged(Path(folder), kind, Path(adapter))
