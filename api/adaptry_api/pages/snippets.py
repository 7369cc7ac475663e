"""Commands and code that use a version with each client, with the right ref and address filled in."""

from __future__ import annotations

import re

from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.refs import AdapterName

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*")


@dataclass(frozen=True, slots=True)
class Snippet:
    """`code` for `client`; `language` is `sh` or `python`."""

    client: str
    language: str
    code: str


def snippets_for(host: str, name: AdapterName, selector: str, base: str | None) -> tuple[Snippet, ...]:
    """A snippet for each client. `selector` is an alias or a number; `base` an untrusted name, used only if a
    shell would read it as one plain word.
    """
    ref = f"{name}@{selector}"
    revision = f"v{selector}" if selector.isdigit() else selector
    model = base if base and _PLAIN.fullmatch(base) else "BASE"
    hub = f"export HF_ENDPOINT={host} HF_TOKEN=YOUR_TOKEN\n"
    short = name.name
    return (
        Snippet("Command line", "sh", f"export ADAPTRY_URL={host}\nadaptry pull {ref} --to ./{short}"),
        Snippet(
            "Python",
            "python",
            f'import adaptry\n\nwith adaptry.connect("{host}") as registry:\n'
            f'    adaptry.pull(registry, "{ref}", "./{short}")',
        ),
        Snippet(
            "PEFT",
            "python",
            f"# {hub.strip()}\nfrom peft import PeftModel\nfrom transformers import AutoModelForCausalLM\n\n"
            f'base = AutoModelForCausalLM.from_pretrained("{model}")\n'
            f'model = PeftModel.from_pretrained(base, "{name}", revision="{revision}")',
        ),
        Snippet(
            "transformers",
            "python",
            f"# {hub.strip()}\nfrom transformers import AutoModelForCausalLM\n\n"
            f'which = {{"revision": "{revision}"}}\n'
            f'model = AutoModelForCausalLM.from_pretrained("{name}", adapter_kwargs=which)',
        ),
        Snippet(
            "vLLM",
            "sh",
            f"export ADAPTRY_URL={host} ADAPTRY_TOKEN=YOUR_WORKER_TOKEN\n"
            "export ADAPTRY_CACHE=/var/cache/adaptry VLLM_ALLOW_RUNTIME_LORA_UPDATING=True\n"
            f"vllm serve {model} --enable-lora\n\n"
            "curl http://localhost:8000/v1/completions -H 'Content-Type: application/json' \\\n"
            f'  -d \'{{"model": "{ref}", "prompt": "Once upon a time", "max_tokens": 20}}\'',
        ),
        Snippet(
            "SGLang",
            "sh",
            f"adaptry pull {ref} --to ./{short}\n"
            f"python -m sglang.launch_server --model-path {model} --lora-paths {short}=./{short}",
        ),
        Snippet(
            "llama.cpp",
            "sh",
            f"adaptry export {ref} --for llama.cpp --base {model} -o ./{short}-gguf\n"
            f"llama-server -m BASE.gguf --lora ./{short}-gguf/adapter.gguf",
        ),
        Snippet(
            "curl",
            "sh",
            "curl -fL -H 'Authorization: Bearer YOUR_TOKEN' -O \\\n"
            f"  {host}/{name}/resolve/{revision}/adapter_model.safetensors",
        ),
    )
