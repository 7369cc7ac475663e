"""PEFT's merge of OFT into a convolution differs from the live adapter, which is reported as a warning."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")

import peft
import torch
from safetensors.torch import load_file, save_file

from adaptry import open_dir
from adaptry.bases.fingerprinting import fingerprint
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.checks import check

from .lora_merging import differing, merged


class Convolutions(torch.nn.Module):
    """A model that is never run as a whole: only its layers are merged."""

    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.ModuleDict(
            {"square": torch.nn.Conv2d(4, 8, 3, padding=1), "point": torch.nn.Conv2d(8, 6, 1)}
        )

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs


def save_base(folder: Path) -> Path:
    torch.manual_seed(0)
    folder.mkdir()
    save_file(Convolutions().state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "c", "architectures": ["Convolutions"]}))
    return folder


def load(folder: Path) -> Convolutions:
    model = Convolutions()
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return model


def oft(base: Path, folder: Path, target: str) -> Path:
    adapted = peft.get_peft_model(load(base), peft.OFTConfig(r=0, oft_block_size=4, target_modules=[target]))
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "oft_" in name:
                parameter += torch.randn_like(parameter) * 0.1
    adapted.save_pretrained(folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "auto_mapping": None}))
    return folder


def is_its_merge(base: Path, adapter: Path, layer: str, inputs: torch.Tensor) -> bool:
    """Whether PEFT's live adapter and its merge give the same output."""
    live = peft.PeftModel.from_pretrained(load(base), adapter).eval()
    with torch.no_grad():
        before = live.base_model.model.net[layer](inputs)
        return torch.allclose(before, live.merge_and_unload().net[layer](inputs), atol=1e-5)


@pytest.mark.parametrize(
    ("layer", "channels", "is_alike"), [("square", 4, False), ("point", 8, True)], ids=["3×3", "1×1"]
)
def test_a_check_and_a_merge_warn_where_the_merge_is_another_model(
    layer: str, channels: int, is_alike: bool, tmp_path: Path
) -> None:
    base = save_base(tmp_path / "base")
    adapter = oft(base, tmp_path / "tone", layer)
    assert is_its_merge(base, adapter, layer, torch.randn(1, channels, 9, 9)) is is_alike

    report = check(open_dir(adapter), fingerprint(open_checkpoint(base)))
    target, record = merged(base, adapter)

    told = [found.reason for found in report.findings if found.code == "merge_differs"]
    assert not report.is_blocked
    reason = (
        f"net.{layer}: a live OFT rotates overlapping patches of the input, but a merge rotates the kernel of"
        " 3×3"
    )
    assert told == ([] if is_alike else [reason])
    assert record.notes == (() if is_alike else (f"tone: {reason}",))
    wanted = peft.PeftModel.from_pretrained(load(base), adapter).merge_and_unload().state_dict()
    assert not differing(dict(load(target).state_dict()), dict(wanted))
