"""Maps module names of diffusers' UNet to those in Stable Diffusion's original code.

sd-scripts trains SDXL with that code, so its files have `input_blocks_4_1_…` for
`down_blocks.1.attentions.0.…`. The numbers follow from the number of layers per block (diffusers'
`_maybe_map_sgm_blocks_to_diffusers`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

_BLOCK = re.compile(
    r"(?P<way>down|up)_blocks\.(?P<block>\d+)\.(?P<kind>resnets|attentions|downsamplers|upsamplers)"
    r"\.(?P<layer>\d+)\.(?P<rest>.+)"
)
_MIDDLE = re.compile(r"mid_block\.(?P<kind>resnets|attentions)\.(?P<layer>\d+)\.(?P<rest>.+)")
_IN_RESNETS = {
    "conv1": "in_layers.2",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
_OUTSIDE = {
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}


def original_names(paths: Iterable[str]) -> Iterator[tuple[str, str]]:
    """The original names of diffusers' `paths`; paths without one are left out."""
    paths = list(paths)
    blocks = [match for path in paths if (match := _BLOCK.fullmatch(path))]
    first = [match for match in blocks if (match["way"], match["block"]) == ("down", "0")]
    depth = len({match["layer"] for match in first if match["kind"] == "resnets"}) + 1
    attended = {(match["way"], match["block"]) for match in blocks if match["kind"] == "attentions"}
    for path in paths:
        if path in _OUTSIDE:
            yield path, _OUTSIDE[path]
        elif match := _MIDDLE.fullmatch(path):
            place = "1" if match["kind"] == "attentions" else str(2 * int(match["layer"]))
            yield path, f"middle_block.{place}.{_inside(match)}"
        elif match := _BLOCK.fullmatch(path):
            yield path, _in_block(match, depth, (match["way"], match["block"]) in attended)


def _in_block(match: re.Match[str], depth: int, has_attention: bool) -> str:
    start, kind = int(match["block"]) * depth, match["kind"]
    if kind == "downsamplers":
        return f"input_blocks.{start + depth}.0.{match['rest'].replace('conv', 'op')}"
    if kind == "upsamplers":
        return f"output_blocks.{start + depth - 1}.{2 if has_attention else 1}.{match['rest']}"
    number = start + int(match["layer"]) + (1 if match["way"] == "down" else 0)
    side = "input" if match["way"] == "down" else "output"
    return f"{side}_blocks.{number}.{0 if kind == 'resnets' else 1}.{_inside(match)}"


def _inside(match: re.Match[str]) -> str:
    return _IN_RESNETS.get(match["rest"], match["rest"]) if match["kind"] == "resnets" else match["rest"]
