"""Runs in SGLang's environment: its LoRA manager with its Llama, on the CPU, and the updates that a request
would get.

`sglang_reader.py BASE OUT ADAPTER…` prints for each adapter the error it is refused with, or the file in
`OUT` with what SGLang adds to each weight of the base, by its own arithmetic. Only parts that need a GPU are
replaced: pinned memory, and positions, on which no weight depends.
"""

from __future__ import annotations

import json
import sys
import tempfile
import uuid
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import safetensors.torch
import torch


def _unpinned(make: Any) -> Any:
    def made(*arguments: Any, pin_memory: bool = False, **named: Any) -> Any:
        return make(*arguments, **named)

    return made


torch.tensor, torch.zeros = _unpinned(torch.tensor), _unpinned(torch.zeros)
torch.Tensor.pin_memory = lambda self, *_: self  # type: ignore[method-assign]

import sglang.srt.distributed.parallel_state as parallel  # noqa: E402
import sglang.srt.models.llama as llama  # noqa: E402
from sglang.srt import runtime_context  # noqa: E402
from sglang.srt.configs.load_config import LoadConfig  # noqa: E402
from sglang.srt.lora.lora_manager import LoRAManager  # noqa: E402
from sglang.srt.lora.lora_registry import LoRARef  # noqa: E402
from sglang.srt.model_executor.forward_batch_info import ForwardMode  # noqa: E402
from sglang.srt.server_args import ServerArgs  # noqa: E402
from transformers import AutoConfig  # noqa: E402

PARTS = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}
"""Weights that SGLang stores as one, stacked by rows."""
FAILURES = (AssertionError, AttributeError, KeyError, RuntimeError, TypeError, ValueError)


def started(base: str, folder: str) -> LoRAManager:
    """The manager of a server that is started with `--max-lora-rank 16 --lora-target-modules all`."""
    said = ServerArgs(
        model_path=base, device="cpu", dtype="float32", enable_lora=True, max_lora_rank=16,
        lora_target_modules=["all"], lora_backend="torch_native", attention_backend="torch_native",
        sampling_backend="pytorch", mem_fraction_static=0.1,
    )  # fmt: skip
    place = runtime_context.SpawnRanks(world_rank=0, gpu_id=0)
    runtime_context.publish(said, role="scheduler", ranks=place)
    parallel.init_distributed_environment(1, 0, f"file://{folder}/meeting", 0, "gloo")
    parallel.initialize_model_parallel()
    llama.get_rope = lambda *_, **__: None
    config = AutoConfig.from_pretrained(base)
    return LoRAManager(
        base_model=llama.LlamaForCausalLM(config), base_hf_config=config, max_loras_per_batch=2,
        load_config=LoadConfig(), dtype=torch.float32, server_args=said, lora_backend="torch_native",
        max_lora_rank=16, target_modules={"all"},
    )  # fmt: skip


def asked(manager: LoRAManager, lora: str, tokens: int) -> None:
    """The manager's work before a request with the adapter is computed."""
    manager.fetch_new_loras({lora})
    batch = SimpleNamespace(
        lora_ids=[lora], batch_size=1, forward_mode=ForwardMode.EXTEND, extend_num_tokens=tokens,
        extend_seq_lens=torch.tensor([tokens], dtype=torch.int32), extend_seq_lens_cpu=[tokens],
    )  # fmt: skip
    manager.prepare_lora_batch(batch)


def updates(manager: LoRAManager, lora: str) -> dict[str, torch.Tensor]:
    """By the base's names on disk: what is added to each weight."""
    found: dict[str, torch.Tensor] = {}
    for layer in manager.lora_modules:
        for path, module in layer.items():
            inputs, outputs = module.base_layer.input_size, module.base_layer.output_size
            asked(manager, lora, inputs)
            added = module.apply_lora(torch.zeros(inputs, outputs), torch.eye(inputs)).T
            parent, _, last = path.rpartition(".")
            names = PARTS.get(last, (last,))
            sizes = getattr(module.base_layer, "output_partition_sizes", None) or [outputs]
            for name, piece in zip(names, added.split(sizes), strict=True):
                found[f"{parent}.{name}.weight"] = piece.contiguous()
    head, table = manager.lm_head_module, manager.embed_tokens_module
    asked(manager, lora, head.embed_dim)
    added = head.apply_lora(torch.zeros(head.embed_dim, head.vocab_size), torch.eye(head.embed_dim))
    found["lm_head.weight"] = added.T.contiguous()
    asked(manager, lora, table.vocab_size)
    tokens = torch.arange(table.vocab_size)
    added = table.apply_lora(torch.zeros(table.vocab_size, table.embed_dim), tokens)
    found["model.embed_tokens.weight"] = added.contiguous()
    return found


def told(manager: LoRAManager, adapter: str, out: Path) -> dict[str, str]:
    ref = LoRARef(lora_name=adapter, lora_path=adapter, pinned=False)
    loaded = manager.load_lora_adapter(ref)
    if not loaded.success:
        return {"refused": loaded.error_message or "no error message", "when": "load"}
    try:
        safetensors.torch.save_file(updates(manager, ref.lora_id), out)
    except FAILURES as error:  # in the scheduler's loop, which catches no errors
        return {"refused": f"{type(error).__name__}: {error}", "when": "request"}
    finally:
        manager.unload_lora_adapter(ref)
    return {"read": str(out)}


@torch.no_grad()
def main(base: str, out: str, *adapters: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        manager = started(base, folder)
        print(json.dumps({"ready": True}), flush=True)
        for adapter in adapters:
            target = Path(out) / f"{uuid.uuid4()}.safetensors"
            print(json.dumps(told(manager, adapter, target)), flush=True)


main(*sys.argv[1:])
