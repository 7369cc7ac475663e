"""An adapter of another base: real PEFT files of the right kind that must not fit ours.

A LoRA on a tiny random llama of another width.  Nothing needs training: what is wrong is the shape.
"""

from __future__ import annotations

from pathlib import Path

from adaptry_cli.demo.dependencies import quiet_libraries

BASE = "example/tiny-random-llama"


def write_foreign_adapter(out_dir: Path) -> Path:
    """Writes the adapter as PEFT does; takes a few seconds."""
    with quiet_libraries():
        import torch
        from peft import LoraConfig, get_peft_model
        from transformers import LlamaConfig, LlamaForCausalLM

        config = LlamaConfig(
            vocab_size=128,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
        )
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = LlamaForCausalLM(config)
            model.name_or_path = BASE
            lora = LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
            adapter = get_peft_model(model, lora)
        adapter.save_pretrained(str(out_dir), save_embedding_layers=False)
    return out_dir
