"""What llama.cpp calls a module of a base, and which of them it stores in another order of rows.

Names are those of the `gguf` package, by architecture. Here is only what that package does not say: which
model type of transformers is which architecture, and whose query and key rows llama.cpp's converter reorders
for its rotary embedding (`conversion/llama.py · LlamaModel.permute`). What is not in the table was not
compared with that converter, and is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from adaptry.core.errors import MissingDependency, Unsupported

_TURNED = {"q_proj": "heads", "k_proj": "kv_heads"}


@dataclass(frozen=True, slots=True)
class GgufArchitecture:
    """`name` is gguf's. `interleaved`: a module name's last part → the fact that counts its rows' heads."""

    name: str
    interleaved: Mapping[str, str] = field(default_factory=dict)


ARCHITECTURES: Mapping[str, GgufArchitecture] = {
    "llama": GgufArchitecture("LLAMA", _TURNED),
    "mistral": GgufArchitecture("LLAMA", _TURNED),
    "mixtral": GgufArchitecture("LLAMA", _TURNED),
    "granite": GgufArchitecture("GRANITE", _TURNED),
    "smollm3": GgufArchitecture("SMOLLM3", _TURNED),
    "olmo": GgufArchitecture("OLMO", _TURNED),
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

_EXPERT = re.compile(r"(?P<before>.+\.experts)\.(?P<number>\d+)\.(?P<after>[^.]+)")


@dataclass(frozen=True, slots=True)
class GgufTarget:
    """A tensor of llama.cpp's, and which expert of it (None: it has none)."""

    tensor: str
    expert: int | None = None


def architecture_of(facts: Mapping[str, Any], label: str) -> GgufArchitecture:
    """Raises `Unsupported` with what there is. (`Any`: JSON.)"""
    model = facts.get("model_type")
    found = ARCHITECTURES.get(str(model))
    if found is None:
        raise Unsupported(
            f"{label} is for a {model}, and GGUF adapters are written for {', '.join(ARCHITECTURES)}: merge"
            " it (--format checkpoint) and convert the model with llama.cpp's own tool"
        )
    return found


def gguf_targets(architecture: GgufArchitecture, layers: int) -> Callable[[str], GgufTarget | None]:
    """A function from a module's path to its place; None where llama.cpp has none for it."""
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
    """The path, also with a task model's prefix, and Mixtral's experts as llama.cpp's converter has them."""
    experts = path.replace("model.layers.", "layers.").replace(
        "block_sparse_moe.experts", "feed_forward.experts"
    )
    return path, f"model.{path}", f"transformer.{path}", experts
