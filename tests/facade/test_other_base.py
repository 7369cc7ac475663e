"""No function uses an adapter on another base of the same shapes unless its caller allows it (on
a server, they are slow)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.facade.conftest import MakeLora

import adaptry
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.operations.base_registry import register_base
from adaptry.testing.samples import tiny_base

Use = Callable[..., object]


def merged(registry: adaptry.Registry, ref: str, other: Path, to: Path, **more: Any) -> object:
    return adaptry.merge(ref, base=other, to=to, registry=registry, **more)


def converted(registry: adaptry.Registry, ref: str, other: Path, to: Path, **more: Any) -> object:
    return adaptry.convert(ref, base=other, to=to, rank=2, registry=registry, **more)


def exported(registry: adaptry.Registry, ref: str, other: Path, to: Path, **more: Any) -> object:
    return adaptry.export(ref, base=other, to=to, format="checkpoint", registry=registry, **more)


def combined(registry: adaptry.Registry, ref: str, other: Path, to: Path, **more: Any) -> object:
    return adaptry.combine({ref: 0.5, f"{ref}-elsewhere": 0.5}, to=to, registry=registry, **more)


def stacked(registry: adaptry.Registry, ref: str, other: Path, to: Path, **more: Any) -> object:
    return adaptry.stack({ref: 1, f"{ref}-elsewhere": 1}, to=to, registry=registry, **more)


@pytest.mark.parametrize("use", [merged, converted, exported, combined, stacked])
def test_an_adapter_is_used_on_another_base_only_if_that_is_allowed(
    registry: adaptry.Registry, name: str, number: int, lora: MakeLora, base: Path, tmp_path: Path, use: Use
) -> None:
    other = tiny_base(tmp_path / "stranger", seed=1000 + number)
    for folder, org in ((base, "org/tiny"), (other, f"org/stranger-{number}")):
        register_base(registry, open_checkpoint(folder), (org,))
    adaptry.push(registry, lora(1), name, base="org/tiny")
    adaptry.push(registry, lora(2), f"{name}-elsewhere", base=f"org/stranger-{number}")

    with pytest.raises(adaptry.errors.CheckFailed, match="other_base=True"):
        use(registry, name, other, tmp_path / "refused")
    assert not (tmp_path / "refused").exists()

    use(registry, name, other, tmp_path / "allowed", other_base=True)
    assert (tmp_path / "allowed").is_dir()
