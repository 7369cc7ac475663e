"""llama.cpp's names for a base's modules, and which modules it stores with another order of rows.

Names come from the `gguf` package, by architecture. This module adds what that package lacks: the
architecture of each model type of transformers, and whether llama.cpp's converter reorders the rows of
queries and keys for its rotary embedding (`conversion/llama.py · LlamaModel.permute`). Model types outside
the table were not compared with that converter, and are refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Any

from adaptry.core.errors import MissingDependency, Unsupported
from adaptry.core.lazy_dataclass import dataclass

_INTERLEAVED = {"q_proj": "heads", "k_proj": "kv_heads"}


@dataclass(frozen=True, slots=True)
class GgufArchitecture:
    """`name` is gguf's. `interleaved` maps the last part of a module's name to the fact with the number of
    heads in its rows.
    """

    name: str
    interleaved: Mapping[str, str] = field(default_factory=dict)


ARCHITECTURES: Mapping[str, GgufArchitecture] = {
    "llama": GgufArchitecture("LLAMA", _INTERLEAVED),
    "mistral": GgufArchitecture("LLAMA", _INTERLEAVED),
    "mixtral": GgufArchitecture("LLAMA", _INTERLEAVED),
    "granite": GgufArchitecture("GRANITE", _INTERLEAVED),
    "smollm3": GgufArchitecture("SMOLLM3", _INTERLEAVED),
    "olmo": GgufArchitecture("OLMO", _INTERLEAVED),
    "qwen2": GgufArchitecture("QWEN2"),
    "qwen2_moe": GgufArchitecture("QWEN2MOE"),
    "qwen3": GgufArchitecture("QWEN3"),
    "qwen3_moe": GgufArchitecture("QWEN3MOE"),
    "gemma": GgufArchitecture("GEMMA"),
    "gemma2": GgufArchitecture("GEMMA2"),
    "gemma3_text": GgufArchitecture("GEMMA3"),
    "phi": GgufArchitecture("PHI2"),
    "phi3": GgufArchitecture("PHI3"),
    "gpt2": GgufArchitecture("GPT2"),
    "starcoder2": GgufArchitecture("STARCODER2"),
    "stablelm": GgufArchitecture("STABLELM"),
    "olmo2": GgufArchitecture("OLMO2"),
    "olmoe": GgufArchitecture("OLMOE"),
    "cohere": GgufArchitecture("COMMAND_R"),
    "nemotron": GgufArchitecture("NEMOTRON"),
    "exaone4": GgufArchitecture("EXAONE4"),
    "glm4": GgufArchitecture("GLM4"),
}

MULTIMODAL: Mapping[str, GgufArchitecture | None] = {
    "llava": None,
    "qwen2_vl": GgufArchitecture("QWEN2VL"),
    "qwen2_5_vl": GgufArchitecture("QWEN2VL"),
    "qwen3_vl": GgufArchitecture("QWEN3VL"),
}
"""Models with a vision tower, of which llama.cpp's adapters change only the language model (None: that of its
model type).
"""

_DEFAULTS: Mapping[str, Mapping[str, int]] = {
    "llama": {"layers": 32, "heads": 32, "kv_heads": 32},
    "mistral": {"layers": 32, "heads": 32, "kv_heads": 8},
}
"""What transformers assumes if the config of a language model omits it, as LLaVA 1.5's does."""

_EXPERT = re.compile(r"(?P<before>.+\.experts)\.(?P<number>\d+)\.(?P<after>[^.]+)")


@dataclass(frozen=True, slots=True)
class GgufTarget:
    """A tensor of llama.cpp, and the expert in it (None: it has no experts)."""

    tensor: str
    expert: int | None = None


def architecture_of(facts: Mapping[str, Any], label: str) -> GgufArchitecture:
    """The architecture of a base. Raises `Unsupported`, with the list of architectures, if it is unknown.
    (`Any`: JSON.)
    """
    model = str(facts.get("model_type"))
    found = MULTIMODAL.get(model) or ARCHITECTURES.get(str(language_facts(facts).get("model_type")))
    if found is None:
        known = ", ".join([*ARCHITECTURES, *MULTIMODAL])
        raise Unsupported(
            f"{label} is for a {model}, but GGUF adapters can be written for {known} only: merge"
            " it (--format checkpoint) and convert the model with llama.cpp's converter"
        )
    return found


def language_facts(facts: Mapping[str, Any]) -> Mapping[str, Any]:
    """The facts of the language model that llama.cpp loads: a part of a multimodal base. (`Any`: JSON.)"""
    text = facts.get("text_config")
    if facts.get("model_type") not in MULTIMODAL or not isinstance(text, dict):
        return facts
    defaults = _DEFAULTS.get(str(text.get("model_type")), {})
    return {**defaults, **text, "tie_word_embeddings": facts.get("tie_word_embeddings")}


def gguf_targets(architecture: GgufArchitecture, layers: int) -> Callable[[str], GgufTarget | None]:
    """A function from a module's path to llama.cpp's tensor; None if llama.cpp has none."""
    gguf = import_gguf()
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[architecture.name], layers)

    def place(path: str) -> GgufTarget | None:
        match = _EXPERT.fullmatch(path)
        number = int(match["number"]) if match else None
        whole = f"{match['before']}.{match['after']}" if match else path
        for spelling in _spellings(whole):
            if found := names.get_name(spelling):
                return GgufTarget(f"{found}.weight", number)
        return None

    return place


def import_gguf() -> Any:
    """The `gguf` package (untyped). Raises `MissingDependency`."""
    try:
        import gguf
    except ImportError:
        raise MissingDependency(
            "GGUF files are written with the gguf package: pip install 'adaptry[export]'"
        ) from None
    return gguf


def _spellings(path: str) -> tuple[str, ...]:
    """The path, the path with a task model's prefix, the names of llama.cpp's converter for Mixtral's
    experts, and a module's name in the language model of a multimodal one.
    """
    experts = path.replace("model.layers.", "layers.").replace(
        "block_sparse_moe.experts", "feed_forward.experts"
    )
    alone = path.replace("model.language_model.", "model.").replace("language_model.model.", "model.")
    return path, f"model.{path}", f"transformer.{path}", experts, alone.removeprefix("language_model.")
