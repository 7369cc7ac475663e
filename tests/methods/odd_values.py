"""Each method's config with one unusual value (null, negative, fractional, of another type), with PEFT as the
reference.

    .venv/bin/python -m tests.methods.odd_values lora loha

PEFT is not run for values that we always block, because no tool writes them. The exit code is 1 if a case is
wrong.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from .corpus import NotByPeft, cases, make
from .families import FAMILIES
from .peft_comparison import ask_peft, ask_us, says_the_value_is_odd, verdict, write
from .variants import VARIANTS

_GENERAL = frozenset(
    ["auto_mapping", "base_model_name_or_path", "peft_type", "peft_version", "revision", "runtime_config"]
)
"""Fields that say nothing about the adapter's arithmetic."""
_ONLY_VALUES_TELL = frozenset([("frod", "regularization_alpha")])
"""Method and field. By this one, PEFT computes FRoD's basis again, which no header shows."""


def odd_values(value: object) -> list[Any]:
    """(`Any`: JSON.)"""
    if isinstance(value, bool):
        return [None, not value, 0, "true"]
    if isinstance(value, int | float):
        return [None, -1, 0, 1, 0.5, 1.5, value + 1, True, str(value), [value]]
    if isinstance(value, str):
        return [None, "", "foo", value.upper(), 1, [value]]
    if isinstance(value, list):
        return [None, [], {}, 1, *([value[0], [*value, value[0]], [*value, None]] if value else [["foo"]])]
    if isinstance(value, dict):
        return [None, [], {"q_proj": 4}, {"q_proj": -1}, {"q_proj": None}, {"q_proj": 1.5}, {"foo": 4}]
    return [0, 1, -1, 1.5, "foo", True, [], {}, ["q_proj"], [1]]


def wrong_values(method: str, folder: Path) -> Iterator[str]:
    """The errors in our answers about the method's first adapter, on the first family that has one."""
    for case in cases([method], dtypes=["fp32"]):
        if case.family not in ("llama", "bert"):
            continue
        try:
            made = make(case, folder / "corpus")
        except (NotByPeft, ImportError):
            continue
        break
    else:
        return
    tensors = load_file(made.adapter / "adapter_model.safetensors")
    config = json.loads((made.adapter / "adapter_config.json").read_text())
    for key in sorted(config.keys() - _GENERAL):
        if (method, key) in _ONLY_VALUES_TELL:
            continue
        for number, value in enumerate(odd_values(config[key])):
            if value == config[key] and type(value) is type(config[key]):
                continue
            adapter = write(folder / f"{method}-{key}-{number}", tensors, {**config, key: value})
            ours = ask_us(made.base, adapter, folder / f"{adapter.name}-merged")
            if ours.blocked and says_the_value_is_odd(ours):
                continue
            family = FAMILIES[case.family]
            wrong = verdict(family, ask_peft(family, made.base, adapter), ours)
            if wrong:
                yield f"{case}: {key} {config[key]!r} → {value!r}: {wrong}"


def main(methods: Iterable[str]) -> int:
    torch.set_num_threads(1)
    count = 0
    with tempfile.TemporaryDirectory() as name:
        for method in methods:
            for wrong in wrong_values(method, Path(name)):
                count += 1
                sys.stdout.write(f"{wrong}\n")
                sys.stdout.flush()
    sys.stdout.write(f"{count:,} wrong\n")
    return 1 if count else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.methods.odd_values", description=__doc__)
    parser.add_argument("methods", nargs="*", default=list(VARIANTS), help="(default: all)")
    sys.exit(main(parser.parse_args().methods))
