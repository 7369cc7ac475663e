"""PEFT's treatment of an adapter on a tiny model, and our findings: shared by tests that compare the two."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peft
import torch

import adaptry
from adaptry.core.errors import AdaptryError

Inputs = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Verdicts:
    """`refusal`: the error that PEFT raises when it loads the adapter. `live` and `merged`: the model's
    outputs with the adapter unmerged and after PEFT's merge; None if it raises an error. `codes`: our
    findings, by severity. `ours`: the outputs of our merge, None if it was refused.
    """

    base: torch.Tensor
    refusal: str | None
    live: torch.Tensor | None
    merged: torch.Tensor | None
    codes: Mapping[str, str]
    ours: torch.Tensor | None

    @property
    def is_blocked(self) -> bool:
        return "blocks" in self.codes.values()


def save_base(model: Any, folder: Path) -> None:
    """Saves the model, with random values, in `folder`. (`Any`: transformers is not typed.)"""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.randn(parameter.shape) * 0.05
    model.save_pretrained(folder)


def save_trained(model: Any, config: peft.PeftConfig, folder: Path) -> None:
    """Saves an adapter of the model, all of whose parameters have changed as if by training."""
    adapted = peft.get_peft_model(model, config)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter += torch.randn(parameter.shape) * 0.2
    adapted.save_pretrained(folder)


def compare(model_class: Any, inputs: Inputs, base: Path, adapter: Path) -> Verdicts:
    """(`Any`: a class of transformers.)"""
    model = model_class.from_pretrained(base).eval()
    before, refusal, live, merged = outputs(model, inputs), None, None, None
    assert before is not None
    try:
        adapted = peft.PeftModel.from_pretrained(model, adapter).eval()
        live = outputs(adapted, inputs)
        merged = outputs(adapted.merge_and_unload(), inputs)
    except (KeyError, AttributeError, RuntimeError, TypeError, ValueError, NotImplementedError) as error:
        refusal = repr(error) if live is None else None
    places: Any = {"base": base, "registry": adapter.parent / "registry", "progress": False}
    report = adaptry.check(adapter, **places)
    codes = {finding.code: finding.severity for finding in report.findings}
    target = adapter.parent / f"{adapter.name}-merged"
    try:
        adaptry.merge(adapter, to=target, **places)
    except AdaptryError:
        return Verdicts(before, refusal, live, merged, codes, None)
    ours = outputs(model_class.from_pretrained(target).eval(), inputs)
    return Verdicts(before, refusal, live, merged, codes, ours)


def outputs(model: Any, inputs: Inputs) -> torch.Tensor | None:
    """The model's outputs; None if it raises an error. (`Any`: a model of transformers.)"""
    try:
        with torch.no_grad():
            found = model(**inputs)
    except (AttributeError, RuntimeError, ValueError, TypeError, IndexError):
        return None
    names = ("logits", "pred_boxes", "spectrogram", "last_hidden_state")
    return torch.cat([found[name].flatten() for name in names if name in found])


def is_close(first: torch.Tensor | None, second: torch.Tensor | None) -> bool:
    if first is None or second is None:
        return False
    return torch.allclose(first, second, rtol=1e-3, atol=1e-3)
