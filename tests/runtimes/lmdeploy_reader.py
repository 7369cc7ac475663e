"""Runs in LMDeploy's environment: its Llama with adapters loaded, on the CPU, and the resulting updates.

`lmdeploy_reader.py BASE OUT ADAPTER…` prints for each adapter the error with which it is refused, or the file
in `OUT` with the update of each weight of the base: factors and scale as LMDeploy's reader has them. The
product is ours, since its kernel needs a GPU.
"""

from __future__ import annotations

import json
import sys
import uuid
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from lmdeploy.pytorch.models.patch import BuildModelContext, add_adapters, build_model_from_hf_config
from transformers import AutoConfig

FAILURES = (AssertionError, AttributeError, KeyError, RuntimeError, TypeError, ValueError)
torch.use_deterministic_algorithms(True)  # so that unwritten memory is NaN, and never right by chance


def built(base: str) -> Any:
    """The model, with no weights except the adapters'."""
    config = AutoConfig.from_pretrained(base)
    context = BuildModelContext()
    return build_model_from_hf_config(
        config, dtype=torch.float32, device=torch.device("cpu"), build_model_ctx=context
    )


def updates(model: Any) -> dict[str, torch.Tensor]:
    """The updates, by the base's names on disk. The first slot stands for no adapter, so the adapter is in
    the second.
    """
    found: dict[str, torch.Tensor] = {}
    for path, module in model.named_modules():
        for name, lora in (getattr(module, "lora_adapters", None) or {}).items():
            info = lora.adapter_info
            start, rank = int(info.rank_offsets[1]), int(info.ranks[1])
            down, up = lora.lora_A[start : start + rank], lora.lora_B[start : start + rank]
            parent = path.rpartition(".")[0]
            found[f"{parent}.{name}.weight"] = (info.scalings[1] * up.T @ down).contiguous()
    return found


def told(base: str, adapter: str, out: Path) -> dict[str, str]:
    model = built(base)
    try:
        add_adapters(model, {"it": adapter}, dtype=torch.float32, device=torch.device("cpu"))
    except FAILURES as error:  # it starts with its adapters, or not at all
        return {"refused": f"{type(error).__name__}: {error}", "when": "start"}
    safetensors.torch.save_file(updates(model), out)
    return {"read": str(out)}


@torch.no_grad()
def main(base: str, out: str, *adapters: str) -> None:
    print(json.dumps({"ready": True}), flush=True)
    for adapter in adapters:
        print(json.dumps(told(base, adapter, Path(out) / f"{uuid.uuid4()}.safetensors")), flush=True)


main(*sys.argv[1:])
