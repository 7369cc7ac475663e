"""A check against a packed copy of a base finds what a check against the base finds, for intact and broken
adapters of many methods and families.
"""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")

from tests.bases.packed_layouts import packed_copy

from adaptry import open_dir
from adaptry.adapters.base_record import BaseRecord
from adaptry.bases.fingerprinting import fingerprint
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.checks import check

from .campaign import generated
from .peft_comparison import write

_UNPACKED = (
    "embed", "wte", "wpe", "shared", "lm_head", "position", "relative", "token_type", "gate.", "router",
    "classifier", "score",
)  # fmt: skip
_OF_QUANTISED = {"base_quantised", "quantised_refused", "lost_in_merge"}


def is_packed(name: str) -> bool:
    """Whether quantisers pack the matrix; they leave embeddings, heads and routers unpacked."""
    return name.endswith(".weight") and not any(part in name for part in _UNPACKED)


def found(adapter: Path, base: BaseRecord) -> set[str]:
    return {finding.code for finding in check(open_dir(adapter), base).findings} - _OF_QUANTISED


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["gptq", "torchao int8"])
def test_a_check_against_a_packed_copy_finds_what_one_against_the_base_finds(
    layout: str, tmp_path: Path
) -> None:
    records: dict[Path, tuple[BaseRecord, BaseRecord]] = {}
    for seed in range(60):
        made = generated(seed, tmp_path / "corpus")
        if made is None or not (made.base / "config.json").exists():
            continue
        if made.base not in records:
            copy = packed_copy(made.base, tmp_path / "copies" / made.base.name, layout, is_packed)
            records[made.base] = tuple(fingerprint(open_checkpoint(base)) for base in (made.base, copy))
        adapter = write(tmp_path / f"adapter-{seed}", made.files.tensors, made.files.config)
        original, packed = records[made.base]
        assert packed.architecture == original.architecture, made.label
        assert found(adapter, packed) == found(adapter, original), made.label
