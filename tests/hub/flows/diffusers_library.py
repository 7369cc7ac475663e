"""diffusers: line 47."""

from __future__ import annotations

import torch
from diffusers.loaders import StableDiffusionLoraLoaderMixin
from safetensors.torch import save_file
from world import World, line

FILE = "pytorch_lora_weights.safetensors"


@line(47)
def load_lora_weights(world: World) -> None:
    """`load_lora_weights` reads the adapter, with and without the name of the file."""
    torch.manual_seed(0)
    at = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    sent = {f"{at}.lora_A.weight": torch.randn(4, 8), f"{at}.lora_B.weight": torch.randn(8, 4)}
    folder = world.scratch / "style"
    folder.mkdir()
    save_file(sent, folder / FILE, {"format": "pt"})
    name = world.name()
    world.api().create_repo(name)
    world.api().upload_folder(repo_id=name, folder_path=folder)
    for asked in ({"weight_name": FILE}, {}, {"revision": "v1"}):
        state, _ = StableDiffusionLoraLoaderMixin.lora_state_dict(name, **asked)
        assert state.keys() == sent.keys(), asked
        assert all(torch.equal(state[key], sent[key]) for key in sent), asked
