"""All engines with rules. To add one, write one file and one entry here."""

from __future__ import annotations

from collections.abc import Mapping

from adaptry.checks.runtimes.diffusers import DIFFUSERS_ENGINE
from adaptry.checks.runtimes.llamacpp import LLAMACPP
from adaptry.checks.runtimes.lmdeploy import LMDEPLOY
from adaptry.checks.runtimes.lorax import LORAX
from adaptry.checks.runtimes.mistralrs import MISTRALRS
from adaptry.checks.runtimes.ollama import OLLAMA
from adaptry.checks.runtimes.peft import PEFT_ENGINE
from adaptry.checks.runtimes.rule import RuntimeRules
from adaptry.checks.runtimes.runtime import Runtime
from adaptry.checks.runtimes.sglang import SGLANG
from adaptry.checks.runtimes.tensorrt_llm import TENSORRT_LLM
from adaptry.checks.runtimes.tgi import TGI
from adaptry.checks.runtimes.vllm import VLLM
from adaptry.core.errors import Invalid
from adaptry.core.suggestions import suggestion

ENGINES: Mapping[str, RuntimeRules] = {
    engine.name: engine
    for engine in (
        *(VLLM, SGLANG, LORAX, TGI, TENSORRT_LLM, LLAMACPP, OLLAMA, MISTRALRS, LMDEPLOY, PEFT_ENGINE),
        DIFFUSERS_ENGINE,
    )
}

_ALIASES = {
    "llamacpp": "llama.cpp",
    "mistralrs": "mistral.rs",
    "trtllm": "tensorrt-llm",
    "tensorrt_llm": "tensorrt-llm",
}


def parse_runtime(text: str) -> Runtime:
    """Parses a runtime. Raises `Invalid`, with the list of engines or options, if either is unknown."""
    given = Runtime.parse(text)
    runtime = Runtime(_ALIASES.get(given.engine, given.engine), given.version, given.options)
    engine = ENGINES.get(runtime.engine)
    if engine is None:
        near = suggestion(given.engine, ENGINES) or f" (one of: {', '.join(ENGINES)})"
        raise Invalid(f"unknown engine {given.engine[:40]!r}{near}")
    for name, value in runtime.options.items():
        option = engine.option(name)
        if option is None:
            known = ", ".join(one.name for one in engine.options) or "none"
            raise Invalid(f"{engine.name} has no option {name[:40]!r} (options: {known})")
        option.check(value)
    return runtime
