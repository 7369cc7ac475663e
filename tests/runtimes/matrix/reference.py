"""The reference results: PEFT's output with an adapter, and the output of an engine that serves it as
trained.
"""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path

import peft
import torch
from safetensors.torch import load_file

from ...methods.peft_comparison import is_harmless
from ..cases import Base, odds
from .generated import Specimen

NEAR = 1e-4


@dataclass(frozen=True)
class PeftAnswer:
    """`error`: why it raised an error; `lost`: tensors of the file that have no effect; `fills_in`: whether
    it adapts modules for which the file has no tensors; `odds`: its output, with `is_random` if that varies.
    """

    error: str = ""
    lost: tuple[str, ...] = ()
    fills_in: bool = False
    is_random: bool = False
    odds: torch.Tensor = field(default_factory=lambda: torch.empty(0))

    @property
    def is_whole(self) -> bool:
        """Whether PEFT uses the whole file, and nothing else determines its output."""
        return not self.error and not self.lost and not self.is_random


def ask_peft(base: Base, adapter: Path) -> PeftAnswer:
    first = _answer(base, adapter, seed=5)
    if not first.fills_in:
        return first
    second = _answer(base, adapter, seed=6)
    return replace(first, is_random=not torch.allclose(first.odds, second.odds, atol=NEAR, equal_nan=True))


def right_answer(base: Base, specimen: Specimen, own: PeftAnswer) -> torch.Tensor | None:
    """PEFT's output if it uses the whole file, else its output with the intended adapter; None if the file is
    not a complete adapter.
    """
    if own.is_whole:
        return own.odds
    for folder in specimen.meant:
        meant = ask_peft(base, folder)
        if meant.is_whole:
            return meant.odds
    return None


def _answer(base: Base, adapter: Path, seed: int) -> PeftAnswer:
    with warnings.catch_warnings(action="ignore"):
        torch.manual_seed(seed)
        try:
            live = peft.PeftModel.from_pretrained(copy.deepcopy(base.model), str(adapter)).eval()
            tensors = load_file(adapter / "adapter_model.safetensors")
            loaded = peft.set_peft_model_state_dict(live, tensors)
            is_listed = bool(getattr(live.peft_config["default"], "modules_to_save", None))
            found = odds(live)
        except Exception as error:  # noqa: BLE001  (whatever PEFT raises is its answer)
            return PeftAnswer(error=f"{type(error).__name__}: {error}")
    unexpected = [
        name
        for name in loaded.unexpected_keys
        if not is_harmless(name, tensors, is_listed)
        or (name.endswith("inv_freq") and tensors[name].dim() > 1)
    ]
    prefix = getattr(live.base_model, "prefix", "\0")
    missing = [name for name in loaded.missing_keys if prefix in name]
    halves = [name for name in missing if _has_others(name, prefix, tensors)]
    lost = (*unexpected, *halves, *_overwritten_rows(live.peft_config["default"]))
    return PeftAnswer(lost=lost, fills_in=bool(missing), odds=found)


def _overwritten_rows(config: peft.PeftConfig) -> tuple[str, ...]:
    """Rows of an embedding that the config lists twice: one of the file's rows overwrites the other."""
    rows = getattr(config, "trainable_token_indices", None) or []
    lists = rows.values() if isinstance(rows, dict) else [rows]
    return tuple(
        f"a row for token {row}" for one in lists for row in {row for row in one if one.count(row) > 1}
    )


def _has_others(missing: str, prefix: str, tensors: dict[str, torch.Tensor]) -> bool:
    """Whether the file has other tensors of the missing tensor's module."""
    module = missing.partition(f".{prefix}")[0]
    return any(name.partition(f".{prefix}")[0] == module for name in tensors if prefix in name)
