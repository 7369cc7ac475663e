"""Helpers for tests of conversions to PEFT's layout: the commands, and a comparison of weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from click.testing import CliRunner, Result
from safetensors.torch import load_file

from adaptry_cli.main import main

Weights = Mapping[str, torch.Tensor]


def run(*arguments: str | Path) -> Result:
    """Runs the command line, without a registry."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def converted(source: Path, target: Path, *more: str | Path) -> Path:
    """The result of `adaptry convert` for `source`."""
    told = run("convert", source, "-o", target, *more)
    assert told.exit_code == 0, told.output
    assert "exact: nothing was approximated" in told.output
    return target


def merged(source: Path, base: Path, target: Path) -> Weights:
    """The weights that `adaptry merge` writes for `source` merged into `base`."""
    told = run("merge", source, "--base", base, "-o", target)
    assert told.exit_code == 0, told.output
    (weights,) = target.glob("*.safetensors")
    return load_file(weights)


def assert_same(found: Weights, wanted: Weights, base: Weights, tolerance: float = 1e-6) -> None:
    """Asserts that exactly the weights that `wanted` changes are changed, to the same values within
    `tolerance` of the largest value.
    """
    changed = [name for name in base if not torch.equal(wanted[name], base[name])]
    assert changed
    for name, weight in found.items():
        if name not in changed:
            assert torch.equal(weight, base[name]), name
        error, largest = (weight - wanted[name]).abs().max(), wanted[name].abs().max()
        assert error <= tolerance * largest, (name, float(error), float(largest))
