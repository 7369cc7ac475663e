"""One combination, by PEFT or by Adaptry, in a separate process; `combine.py` compares them.

    python bench/combined.py peft|replay|own METHOD COUNT FOLDER

FOLDER holds adapters `0`, `1`, … and the base's `config.json`. Prints the seconds from adapters on disk to
the result on disk, PEFT's seconds of the one call in the middle, and the process's peak memory; leaves the
factors in FOLDER/WHO-METHOD-COUNT. That PEFT needs a model to load adapters into is not counted.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

METHODS: dict[str, dict[str, Any]] = {
    "linear": {},
    "cat": {},
    "svd": {},
    "ties": {"density": 0.4},
    "ties_svd": {"density": 0.4},
    "dare_linear": {"density": 0.4},
    "dare_linear_svd": {"density": 0.4},
    "dare_ties": {"density": 0.4},
    "dare_ties_svd": {"density": 0.4},
    "magnitude_prune": {"density": 0.4},
    "magnitude_prune_svd": {"density": 0.4},
}
"""PEFT's combination types, with their arguments here."""
OWN: dict[str, tuple[str, dict[str, Any]]] = {
    "cat": ("linear", {}),
    "svd": ("svd", {}),
    "ties_svd": ("ties", {"density": 0.4, "sign": "unweighted"}),
    "dare_linear_svd": ("dare_linear", {"density": 0.4}),
    "dare_ties_svd": ("dare_ties", {"density": 0.4, "sign": "unweighted"}),
    "magnitude_prune_svd": ("magnitude_prune", {"density": 0.4}),
}
"""The corresponding methods on updates; the other types have no counterpart."""
DRAWN = frozenset(["dare_linear_svd", "dare_ties_svd"])
"""Types with the same distribution but other random numbers, whose results cannot be compared."""
SEED = 7
RANK = 16


def make_adapters(folder: Path, width: int, layers: int, count: int) -> int:
    """Writes the base's config and this many adapters with plausible values. Returns the number of modules of
    each."""
    import torch
    from peft import LoraConfig, get_peft_model

    folder.mkdir(parents=True)
    config = _config(width, layers)
    (folder / "config.json").write_text(json.dumps({"width": width, "layers": layers}))
    targets = ["q_proj", "o_proj"] if width > 1000 else "all-linear"
    modules = 0
    for number in range(count):
        torch.manual_seed(number)
        model = get_peft_model(
            _model(config), LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=targets)
        )
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(parameter, std=0.02)
        model.save_pretrained(str(folder / str(number)))
        modules = sum("lora_A" in name for name, _ in model.named_parameters())
    return modules


def make_many(folder: Path, width: int, layers: int, count: int) -> int:
    """Like `make_adapters`, without a model: for more layers than memory could hold as PEFT's dense
    updates.
    """
    import torch
    from safetensors.torch import save_file

    targets = ["q_proj", "o_proj"]
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": 2 * RANK}
    for number in range(count):
        torch.manual_seed(number)
        tensors = {}
        for layer in range(layers):
            for target in targets:
                at = f"base_model.model.model.layers.{layer}.self_attn.{target}"
                tensors[f"{at}.lora_A.weight"] = torch.randn(RANK, width) * 0.02
                tensors[f"{at}.lora_B.weight"] = torch.randn(width, RANK) * 0.02
        (folder / str(number)).mkdir(parents=True)
        save_file(tensors, folder / str(number) / "adapter_model.safetensors")
        text = json.dumps({**config, "target_modules": targets})
        (folder / str(number) / "adapter_config.json").write_text(text)
    return layers * len(targets)


def sameness(folder: Path, method: str, count: int, who: str) -> str:
    """The difference between `who` and PEFT: bit-equal, or ‖Δ − Δ_PEFT‖ / ‖Δ_PEFT‖ of the worst module; empty
    for other draws.
    """
    import torch
    from safetensors.torch import load_file

    if who == "own" and method in DRAWN:
        return ""
    theirs, ours = (
        load_file(folder / f"{one}-{method}-{count}" / "adapter_model.safetensors") for one in ("peft", who)
    )
    if theirs.keys() != ours.keys():
        return "NO: other tensors"
    if all(torch.equal(theirs[name], ours[name]) for name in theirs):
        return "bits"
    largest = 0.0
    for name in theirs:
        if name.endswith("lora_A.weight"):
            up = name.replace("lora_A", "lora_B")
            pair = [each[up].double() @ each[name].double() for each in (theirs, ours)]
            largest = max(largest, float((pair[0] - pair[1]).norm() / pair[0].norm()))
    return f"{largest:.0e}"


def _config(width: int, layers: int) -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(
        hidden_size=width, intermediate_size=width * 8 // 3, num_hidden_layers=layers, vocab_size=512,
        num_attention_heads=width // 64, num_key_value_heads=width // 64,
    )  # fmt: skip


def _model(config: Any) -> Any:
    from transformers import LlamaForCausalLM

    return LlamaForCausalLM(config)


def _by_peft(method: str, count: int, folder: Path, target: Path) -> tuple[float, float]:
    import torch
    from peft import PeftModel

    made = json.loads((folder / "config.json").read_text())
    torch.manual_seed(0)
    names = [f"adapter_{number}" for number in range(count)]
    base = _model(_config(made["width"], made["layers"]))
    began = time.perf_counter()
    model = PeftModel.from_pretrained(base, folder / "0", names[0])
    for number, name in enumerate(names[1:], 1):
        model.load_adapter(str(folder / str(number)), name)
    torch.manual_seed(SEED)
    called = time.perf_counter()
    model.add_weighted_adapter(names, _weights(count), "combined", combination_type=method, **METHODS[method])
    call = time.perf_counter() - called
    model.save_pretrained(str(target), selected_adapters=["combined"])
    whole = time.perf_counter() - began
    for path in (target / "combined").iterdir():
        path.rename(target / path.name)
    return whole, call


def _by_us(who: str, method: str, count: int, folder: Path, target: Path) -> tuple[float, float]:
    import torch  # noqa: F401  PEFT's time is without its import too

    from adaptry import open_dir
    from adaptry.compute.combining.combine import build_combined_adapter
    from adaptry.compute.combining.plan import plan_combination
    from adaptry.compute.lazy_adapters.folder_writer import write_adapter
    from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter
    from adaptry.compute.recipes.combine import CombineRecipe

    began = time.perf_counter()
    name, parameters = OWN[method] if who == "own" else (f"peft:{method}", METHODS[method])
    recipe = CombineRecipe.model_validate(
        {
            "method": name,
            "parameters": parameters,
            "rank": RANK if who == "own" and name != "linear" else None,
            "seed": SEED,
            "inputs": [{"source": str(n), "weight": weight} for n, weight in enumerate(_weights(count))],
        }
    )
    parents = [ParentAdapter(open_dir(folder / str(number)), str(number)) for number in range(count)]
    write_adapter(build_combined_adapter(plan_combination(recipe, parents)), target)
    whole = time.perf_counter() - began
    return whole, whole


def _weights(count: int) -> list[float]:
    return [1.0 / (number + 1) for number in range(count)]


def _peak() -> int:
    """KiB."""
    with Path("/proc/self/status").open() as status:
        return int(next(line for line in status if line.startswith("VmHWM")).split()[1])


if __name__ == "__main__" and len(sys.argv) == 5:  # `make bench` runs every file here
    who, asked_method, many, where = sys.argv[1:]
    result = Path(where) / f"{who}-{asked_method}-{many}"
    shutil.rmtree(result, ignore_errors=True)
    asked = asked_method, int(many), Path(where), result
    seconds, call = _by_peft(*asked) if who == "peft" else _by_us(who, *asked)
    print(json.dumps({"seconds": seconds, "call": call, "peak": _peak()}))
