"""The real engines of the matrix: how each is queried, and which of our verdicts it is compared with."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import torch
from safetensors.torch import load_file

from ...exporting.llamacpp import CONVERTER, write_base
from ...formats.other_environment import OtherEnvironment
from ..cases import PROMPTS, Base, odds_with
from ..engine_queries import ask

TOKENS = json.dumps([[int(word[1:]) for word in prompt.split()] for prompt in PROMPTS])


@dataclass(frozen=True)
class Reply:
    """`refused`: its error, and `when`; otherwise its answer, the log-probabilities of every token."""

    refused: str = ""
    when: str = ""
    odds: torch.Tensor | None = None


Asking = Callable[[Base, Sequence[Path], Path], "list[Reply]"]


@dataclass(frozen=True)
class Engine:
    """`runtime`: the runtime of the verdict, as in `--runtime`; `version`: the running version; `python`: the
    Python of its environment, empty if there is none.
    """

    name: str
    runtime: str
    version: str
    python: str
    replies: Asking


def _answering(environment: OtherEnvironment, prompts: str) -> Asking:
    """An engine that answers requests. With the base alone, it must answer like transformers."""

    def replies(base: Base, adapters: Sequence[Path], folder: Path) -> list[Reply]:
        answers = ask(environment.command(base.folder, prompts), adapters)
        _require_same_base(base, answers.ready)
        return [_reply(one) for one in answers.found]

    return replies


def _reading(environment: OtherEnvironment) -> Asking:
    """A reader: what it would add to each of the base's weights."""

    def replies(base: Base, adapters: Sequence[Path], folder: Path) -> list[Reply]:
        found = []
        for one in ask(environment.command(base.folder, folder), adapters).found:
            if "read" in one:
                found.append(Reply(odds=odds_with(base, load_file(one["read"]))))
                Path(one["read"]).unlink()
            else:
                found.append(_reply(one))
        return found

    return replies


def _by_llamacpp(base: Base, adapters: Sequence[Path], folder: Path) -> list[Reply]:
    config = base.model.config
    interleaved = {"q_proj.weight": config.num_attention_heads, "k_proj.weight": config.num_key_value_heads}
    file = write_base(base.model, gguf.MODEL_ARCH.LLAMA, folder / "base.gguf", interleaved)
    script = Path(__file__).parents[1] / "llamacpp_engine.py"
    answers = ask([sys.executable, script, CONVERTER or "", base.folder, file, TOKENS], adapters)
    _require_same_base(base, answers.ready)
    return [_reply(one) for one in answers.found]


def _require_same_base(base: Base, ready: Mapping[str, Any]) -> None:
    """(`Any`: JSON.)"""
    assert torch.allclose(torch.tensor(ready["odds"]), odds_with(base, {}), atol=1e-4)


def _reply(one: Mapping[str, Any]) -> Reply:
    """(`Any`: JSON.)"""
    if "refused" in one:
        return Reply(one["refused"] or "no error message", one.get("when", "load"))
    return Reply(odds=torch.tensor(one["odds"]))


def _environment(name: str, script: str) -> OtherEnvironment:
    return OtherEnvironment(name, f"../runtimes/{script}")


_VLLM = _environment("vllm", "vllm_engine.py")
_SGLANG = _environment("sglang", "sglang_reader.py")
_LMDEPLOY = _environment("lmdeploy", "lmdeploy_reader.py")
_MISTRALRS = _environment("mistralrs", "mistralrs_engine.py")

ENGINES: Mapping[str, Engine] = {
    engine.name: engine
    for engine in (
        Engine("vllm", "vllm@0.32,max_lora_rank=16", "0.32.0", _VLLM.python, _answering(_VLLM, TOKENS)),
        Engine("sglang", "sglang,max_lora_rank=16", "0.5.23", _SGLANG.python, _reading(_SGLANG)),
        Engine("lmdeploy", "lmdeploy", "0.18.0", _LMDEPLOY.python, _reading(_LMDEPLOY)),
        Engine(
            "mistral.rs", "mistral.rs", "0.9.5", _MISTRALRS.python,
            _answering(_MISTRALRS, json.dumps(PROMPTS)),
        ),
        Engine("llama.cpp", "llama.cpp", "0b03adaa", sys.executable if CONVERTER else "", _by_llamacpp),
    )
}  # fmt: skip
"""The engines besides PEFT, which is the reference."""
