"""A model of layer kinds that are rare in transformers' models, saved and loaded like those."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Self

import torch
from safetensors.torch import load_file, save_file


class Layers(torch.nn.Module):
    """One of each layer, one level down as in any real model; it is never run."""

    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.ModuleDict(
            {
                "line": torch.nn.Conv1d(8, 16, 3),
                "plane": torch.nn.Conv2d(8, 16, (3, 2)),
                "point": torch.nn.Conv2d(16, 8, 1),
                "space": torch.nn.Conv3d(8, 16, 3),
                "heads": torch.nn.MultiheadAttention(16, 2, batch_first=True),
            }
        )

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs

    def save_pretrained(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: tensor.contiguous() for name, tensor in self.state_dict().items()}
        save_file(tensors, folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps({"model_type": "layers", "architectures": ["Layers"]}))

    @classmethod
    def from_pretrained(cls, folder: Path, **_: Any) -> Self:
        """Loads the model in its saved dtype. (`Any`: the arguments of transformers' own method.)"""
        tensors = load_file(folder / "model.safetensors")
        model = cls().to(next(iter(tensors.values())).dtype)
        model.load_state_dict(tensors)
        return model
