"""Files with the names that the adapted model's own `state_dict` has, which contain the adapter's name."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")

from safetensors.torch import load_file

from .corpus import cases, make
from .families import FAMILIES
from .peft_comparison import ask_peft, ask_us, verdict, write

INSIDE = re.compile(r"\.((?:adamss|glora|ln_tuning|osf|psoft|trainable|lokr|p?vera|randlora)_[^.]+)")


@pytest.mark.slow
@pytest.mark.parametrize("is_last", [False, True], ids=["after the layer's part", "at the end"])
@pytest.mark.parametrize(
    "method",
    [
        *("adamss", "glora", "ln_tuning", "lokr", "osf", "psoft", "trainable_tokens"),
        *("pvera", "randlora", "vera"),  # its matrices are shared by all modules
    ],
)
def test_names_with_the_adapters_are_read_as_peft_reads_them(
    method: str, is_last: bool, tmp_path: Path
) -> None:
    case = next(case for case in cases(dtypes=["fp32"]) if (case.method, case.family) == (method, "llama"))
    made = make(case, tmp_path / "corpus")
    tensors = load_file(made.adapter / "adapter_model.safetensors")
    named = {
        f"{name}.default" if is_last else INSIDE.sub(r".\1.default", name, count=1): value
        for name, value in tensors.items()
    }
    config = json.loads((made.adapter / "adapter_config.json").read_text())
    adapter = write(tmp_path / "adapter", named, config)

    theirs = ask_peft(FAMILIES["llama"], made.base, adapter)
    ours = ask_us(made.base, adapter, tmp_path / "merged")

    assert verdict(FAMILIES["llama"], theirs, ours) is None
    has_one_part = all(re.search(rf"{INSIDE.pattern}$", name) for name in tensors)
    assert theirs.takes_all is (has_one_part or not is_last)
    assert bool(ours.blocked) is not theirs.takes_all


@pytest.mark.slow
@pytest.mark.parametrize("method", ["shira", "prompt_tuning", "p_tuning", "prefix_tuning"])
def test_names_with_the_adapters_that_peft_does_not_find_are_blocked(method: str, tmp_path: Path) -> None:
    case = next(case for case in cases(dtypes=["fp32"]) if (case.method, case.family) == (method, "llama"))
    made = make(case, tmp_path / "corpus")
    tensors = load_file(made.adapter / "adapter_model.safetensors")
    config = json.loads((made.adapter / "adapter_config.json").read_text())
    named = {f"{name}.default": value for name, value in tensors.items()}
    adapter = write(tmp_path / "adapter", named, config)

    theirs = ask_peft(FAMILIES["llama"], made.base, adapter)

    assert theirs.unexpected or (theirs.error and not theirs.is_served)
    assert ask_us(made.base, adapter, tmp_path / "merged").blocked
    assert not ask_us(made.base, made.adapter, tmp_path / "plain").blocked
