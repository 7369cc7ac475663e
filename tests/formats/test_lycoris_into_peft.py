"""LyCORIS' LoHa and LoKr converted to PEFT's layout: PEFT's merge and ours equal LyCORIS' formulas."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor, nn

from adaptry import open_dir

from .into_peft import Weights, assert_same, converted, merged, run
from .other_layouts import Shapes, unet, written

LINEAR, CONV = "down_blocks.0.attentions.0.to_q", "down_blocks.0.resnets.0.conv1"
FILE = "style.safetensors"
Parts = Mapping[str, Tensor]


def loha(parts: Parts) -> Tensor:
    """`loha_diff_weight` of LyCORIS, without its scale."""
    if "hada_t1" in parts:
        first, second = (
            torch.einsum(
                "ijkl,jr,ip->prkl", parts[f"hada_t{n}"], parts[f"hada_w{n}_b"], parts[f"hada_w{n}_a"]
            )
            for n in (1, 2)
        )
    else:
        first, second = (parts[f"hada_w{n}_a"] @ parts[f"hada_w{n}_b"] for n in (1, 2))
    return first * second


def lokr(parts: Parts) -> Tensor:
    """`kron_weight` of LyCORIS, without its scale."""
    left = parts["lokr_w1"] if "lokr_w1" in parts else parts["lokr_w1_a"] @ parts["lokr_w1_b"]
    if "lokr_t2" in parts:
        right = torch.einsum("ijkl,ip,jr->prkl", parts["lokr_t2"], parts["lokr_w2_a"], parts["lokr_w2_b"])
    else:
        right = parts["lokr_w2"] if "lokr_w2" in parts else parts["lokr_w2_a"] @ parts["lokr_w2_b"]
    return torch.kron(left.reshape(*left.shape, *[1] * (right.dim() - 2)), right.contiguous())


def cut(**shapes: tuple[int, ...]) -> Shapes:
    return shapes


# For an 8×8 matrix and an 8×8×3×3 kernel. Scales: alpha/rank; 1 if no factor has a rank.
CASES: dict[str, tuple[Callable[[Parts], Tensor], Shapes, Shapes, float]] = {
    "loha": (
        loha,
        cut(hada_w1_a=(8, 4), hada_w1_b=(4, 8), hada_w2_a=(8, 4), hada_w2_b=(4, 8)),
        cut(hada_w1_a=(8, 4), hada_w1_b=(4, 72), hada_w2_a=(8, 4), hada_w2_b=(4, 72)),
        0.75,
    ),
    "a Tucker loha": (
        loha,
        cut(hada_w1_a=(8, 4), hada_w1_b=(4, 8), hada_w2_a=(8, 4), hada_w2_b=(4, 8)),
        cut(
            hada_t1=(4, 4, 3, 3), hada_w1_a=(4, 8), hada_w1_b=(4, 8),
            hada_t2=(4, 4, 3, 3), hada_w2_a=(4, 8), hada_w2_b=(4, 8),
        ),
        0.75,
    ),
    "lokr": (
        lokr,
        cut(lokr_w1=(2, 2), lokr_w2_a=(4, 1), lokr_w2_b=(1, 4)),
        cut(lokr_w1=(2, 2), lokr_w2_a=(4, 1), lokr_w2_b=(1, 36)),
        3.0,
    ),
    "a Tucker lokr": (
        lokr,
        cut(lokr_w1=(2, 2), lokr_w2_a=(4, 1), lokr_w2_b=(1, 4)),
        cut(lokr_w1=(2, 2), lokr_t2=(1, 1, 3, 3), lokr_w2_a=(1, 4), lokr_w2_b=(1, 4)),
        3.0,
    ),
    "a lokr of whole factors": (
        lokr,
        cut(lokr_w1=(2, 2), lokr_w2=(4, 4)),
        cut(lokr_w1=(2, 2), lokr_w2=(4, 4, 3, 3)),
        1.0,
    ),
    "a lokr whose first factor is a product": (
        lokr,
        cut(lokr_w1_a=(4, 1), lokr_w1_b=(1, 4), lokr_w2=(2, 2)),
        cut(lokr_w1_a=(4, 1), lokr_w1_b=(1, 4), lokr_w2=(2, 2, 3, 3)),
        3.0,
    ),
}  # fmt: skip


def lycoris(folder: Path, linear: Shapes, conv: Shapes, alpha: float | None = 3.0) -> Path:
    at = {LINEAR: linear, CONV: conv}
    shapes = {
        f"lora_unet_{path.replace('.', '_')}.{role}": shape
        for path, own in at.items()
        for role, shape in own.items()
    }
    alphas = {f"lora_unet_{path.replace('.', '_')}.alpha": alpha for path in at} if alpha else {}
    return written(folder, FILE, shapes, None, {"ss_network_dim": "4"}, alphas)


def as_formula_says(source: Path, base: Path, formula: Callable[[Parts], Tensor], scale: float) -> Weights:
    factors, weights = load_file(source / FILE), load_file(base / "diffusion_pytorch_model.safetensors")
    for path in (LINEAR, CONV):
        start = f"lora_unet_{path.replace('.', '_')}."
        parts = {name.removeprefix(start): it for name, it in factors.items() if name.startswith(start)}
        weights[f"{path}.weight"] += (formula(parts) * scale).reshape(weights[f"{path}.weight"].shape)
    return weights


def by_peft(base: Path, adapter: Path) -> Weights:
    """The weights of the modules with these names after PEFT has merged the adapter."""
    weights = load_file(base / "diffusion_pytorch_model.safetensors")
    model = nn.Module()
    for name, weight in weights.items():
        *parents, last = name.removesuffix(".weight").split(".")
        place = model
        for parent in parents:
            if not hasattr(place, parent):
                place.add_module(parent, nn.Module())
            place = place.get_submodule(parent)
        fan_out, fan_in, *kernel = weight.shape
        place.add_module(
            last,
            nn.Conv2d(fan_in, fan_out, (kernel[0], kernel[1]), bias=False)
            if kernel
            else nn.Linear(fan_in, fan_out, bias=False),
        )
    model.load_state_dict(weights)
    found: dict[str, Tensor] = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload().state_dict()
    return found


@pytest.mark.parametrize("case", CASES)
def test_a_converted_lycoris_changes_weights_by_its_own_formula(case: str, tmp_path: Path) -> None:
    formula, linear, conv, scale = CASES[case]
    source, base = lycoris(tmp_path / "out", linear, conv), unet(tmp_path / "unet")
    weights = load_file(base / "diffusion_pytorch_model.safetensors")
    wanted = as_formula_says(source, base, formula, scale)
    assert_same(merged(source, base, tmp_path / "merged"), wanted, weights)
    folder = converted(source, tmp_path / "peft", "--base", base)
    assert_same(by_peft(base, folder), wanted, weights)
    told = run("check", source, "--base", base)
    assert told.exit_code == 0, told.output


def test_factors_that_peft_cannot_represent_are_refused(tmp_path: Path) -> None:
    base = unet(tmp_path / "unet")
    matrix = cut(lokr_w1=(4, 2), lokr_w2=(2, 4))
    source = lycoris(tmp_path / "out", matrix, cut(lokr_w1=(4, 2), lokr_w2=(2, 4, 3, 3)))
    told = run("merge", source, "--base", base, "-o", tmp_path / "merged")
    assert told.exit_code == 2
    assert "unbalanced_factorization of LyCORIS" in " ".join(told.output.split())
    source = lycoris(tmp_path / "dora", {**matrix, "dora_scale": (8, 1)}, {})
    told = run("merge", source, "--base", base, "-o", tmp_path / "merged")
    assert "has dora_scale in addition to its factors" in " ".join(told.output.split())


def test_the_sides_of_a_lycoris_are_compared_with_the_base(tmp_path: Path) -> None:
    _, linear, conv, _ = CASES["loha"]
    source = lycoris(tmp_path / "out", linear, conv)
    assert {(module.fan_in, module.fan_out) for module in open_dir(source).spec.modules} == {(8, 8), (72, 8)}
    told = run("check", source, "--base", unet(tmp_path / "other", width=16))
    assert told.exit_code == 1
    assert "shape_mismatch" in told.output
