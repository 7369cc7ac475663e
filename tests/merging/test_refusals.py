"""A merge that would be wrong is refused before anything is written, with the reason."""

from __future__ import annotations

import json
import math
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from adaptry import open_dir
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.compute.merging.merge import MergeOptions, MergeSource, merge
from adaptry.compute.merging.weighted_adapter import WeightedAdapter
from adaptry.compute.recipes.merge import MergeRecipe, RecipeInput, parse_dtype
from adaptry.core.byte_sizes import parse_bytes
from adaptry.core.errors import AdaptryError, CheckFailed, Conflict, Invalid, Unsupported
from adaptry.testing.samples import Tensors, random_tensor, tiny_base, tiny_lora, write_safetensors

LAYER = "base_model.model.model.layers.0"
QUERY = f"{LAYER}.self_attn.q_proj"
CPU = MergeOptions()


def refusal(base: Path, adapter: Path, how: MergeOptions = CPU, **recipe: Any) -> AdaptryError:
    """The error of a merge of `adapter` (called ./tone) into `base`, after which nothing new is on disk."""
    target = base.parent / "merged"
    before = sorted(base.parent.iterdir())
    with pytest.raises(AdaptryError) as caught:
        merge(
            MergeRecipe(base="./base", inputs=(RecipeInput(source="./tone"),), **recipe),
            open_checkpoint(base),
            [MergeSource(WeightedAdapter(open_dir(adapter), 1.0, "./tone"))],
            target,
            how,
        )
    assert sorted(base.parent.iterdir()) == before
    return caught.value


def tensor(*shape: int) -> tuple[str, tuple[int, ...], bytes]:
    return random_tensor(shape, seed=7)


def dropped(first: str, count: int = 1) -> str:
    return (
        f"./tone: PEFT would silently drop {count} tensor{'s' * (count > 1)}"
        f" ({first}); `adaptry check` shows the remedy"
    )


STRANGE = "the model with the adapter has no parameter of this name"


def nowhere(module: str) -> str:
    return (
        f"./tone: 1 of its 5 modules is not in BASE (first: {module}); is this the base it was trained on? "
        "`adaptry check` shows more"
    )


VARIANTS: dict[str, tuple[dict[str, Any], Tensors, str]] = {
    "half of its DoRA": (
        {"use_dora": True},
        {f"{QUERY}.lora_magnitude_vector": tensor(16)},
        (
            "./tone: according to the config, modules have magnitudes (use_dora), but the file has none:"
            " model.layers.N.self_attn.v_proj, model.layers.N.self_attn.q_proj [tensors_missing] → save it"
            " again with PEFT's model.save_pretrained(DIR), and check that the file has them"
        ),
    ),
    "aLoRA": (
        {"alora_invocation_tokens": [1, 2]},
        {},
        (
            "./tone: it is an aLoRA, which acts only after its invocation tokens: serve it with PEFT or an"
            " engine that knows aLoRA"
        ),
    ),
    "PiSSA": (
        {"init_lora_weights": "pissa_niter_4"},
        {},
        (
            "./tone: PiSSA with a randomised decomposition changed the base before training in a way that"
            " cannot be reproduced: convert the adapter once with PEFT, save_pretrained(DIR,"
            " path_initial_model_for_weight_conversion=FIRST), where FIRST is the adapter as it was before"
            " training"
        ),
    ),
    "a bias": (
        {"bias": "lora_only"},
        {f"{QUERY}.base_layer.bias": tensor(16)},
        (
            "./tone has 1 whole weight that does not exist in BASE (first:"
            " model.layers.0.self_attn.q_proj.bias): load the base with the model class that was trained,"
            " save it, and merge into that"
        ),
    ),
    "a bias of lora_B": (
        {"lora_bias": True},
        {f"{QUERY}.lora_B.bias": tensor(16)},
        (
            "./tone adds to the bias of model.layers.0.self_attn.q_proj, but BASE has no "
            "model.layers.0.self_attn.q_proj.bias: serve it unmerged with PEFT"
        ),
    ),
    "a convolution": (
        {},
        {f"{LAYER}.conv.lora_A.weight": tensor(4, 16, 3), f"{LAYER}.conv.lora_B.weight": tensor(16, 4, 1)},
        nowhere("model.layers.0.conv"),
    ),
    "target_parameters": (
        {"target_parameters": ["mlp.experts.gate_up_proj"]},
        {
            f"{LAYER}.mlp.experts.lora_A.weight": tensor(8, 16),
            f"{LAYER}.mlp.experts.lora_B.weight": tensor(32, 8),
        },
        nowhere("model.layers.0.mlp.experts"),
    ),
    "a key of unknown use": (
        {},
        {f"{QUERY}.lora_Q.weight": tensor(4)},
        dropped(f"{QUERY}.lora_Q.weight: {STRANGE}"),
    ),
    "a key that PEFT would not find": (
        {},
        {f"base_model.model.{QUERY}.lora_A.weight": tensor(4, 16)},
        dropped(f"base_model.model.{QUERY}.lora_A.weight: {STRANGE}"),
    ),
    "half a pair": (
        {},
        {f"{LAYER}.self_attn.k_proj.lora_A.weight": tensor(4, 16)},
        dropped(
            "model.layers.0.self_attn.k_proj: model.layers.0.self_attn.k_proj.lora_A.weight alone does not"
            " form a module: other tensors are missing, or its shape contradicts the config"
        ),
    ),
    "factors of two ranks": (
        {},
        {f"{QUERY}.lora_B.weight": tensor(16, 3)},
        (
            "./tone: the shapes of the factors of model.layers.0.self_attn.q_proj do not match: lora_B"
            " [16, 3] by lora_A [4, 16]"
        ),
    ),
    "factors of rank 0": (
        {},
        {f"{QUERY}.lora_A.weight": ("F32", (0, 16), b""), f"{QUERY}.lora_B.weight": ("F32", (16, 0), b"")},
        (
            "PEFT refuses to load ./tone: 2 tensors have no elements:"
            " base_model.model.model.layers.N.self_attn.q_proj.lora_A.weight,"
            " base_model.model.model.layers.N.self_attn.q_proj.lora_B.weight"
        ),
    ),
    "factors of integers": (
        {},
        {f"{QUERY}.lora_A.weight": ("I8", (4, 16), bytes(64))},
        (
            "./tone: the factors of model.layers.0.self_attn.q_proj are I8 and F32,"
            " but only floating-point factors can be merged"
        ),
    ),
    "another method": (
        {"peft_type": "IA3"},
        {},
        dropped(f"{QUERY}.lora_A.weight: {STRANGE}", 8),
    ),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_adapter_that_is_not_a_plain_lora_is_named_with_a_remedy(variant: str, tmp_path: Path) -> None:
    config, extra, sentence = VARIANTS[variant]
    adapter = tiny_lora(tmp_path / "tone", config=config, extra=extra)

    base = tiny_base(tmp_path / "base")

    error = refusal(base, adapter)

    assert error.message == sentence.replace("BASE", str(base))
    assert isinstance(error, CheckFailed | Unsupported)


def test_an_adapter_without_a_module_would_change_nothing(tmp_path: Path) -> None:
    adapter = tiny_lora(tmp_path / "tone", targets=())

    error = refusal(tiny_base(tmp_path / "base"), adapter)

    assert error.message == "PEFT refuses to load ./tone: the config selects no module (target_modules)"


def test_a_base_of_another_width_is_not_the_adapters_base(tmp_path: Path) -> None:
    base = tiny_base(tmp_path / "base", hidden=32)

    error = refusal(base, tiny_lora(tmp_path / "tone"))

    assert isinstance(error, CheckFailed)
    assert (
        error.message == "./tone: model.layers.0.self_attn.q_proj changes a weight of 16×16, but "
        f"model.layers.0.self_attn.q_proj.weight in {base} is 32×32: this is not the base it was trained on"
    )


def test_a_base_with_fewer_layers_is_not_the_adapters_base(tmp_path: Path) -> None:
    base = tiny_base(tmp_path / "base", layers=1)

    error = refusal(base, tiny_lora(tmp_path / "tone"))

    assert isinstance(error, CheckFailed)
    assert (
        error.message
        == f"./tone: 2 of its 4 modules are not in {base} (first: model.layers.1.self_attn.q_proj); "
        "is this the base it was trained on? `adaptry check` shows more"
    )


def test_merging_into_an_unknown_quantisation_is_refused(tmp_path: Path) -> None:
    base = tiny_base(tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": "gptq"}}))

    error = refusal(base, tiny_lora(tmp_path / "tone"))

    assert isinstance(error, Unsupported)
    assert (
        error.message
        == f"{base} is quantised (gptq) by its config.json, but none of its weights is packed in a known"
        " way: merge into the unquantised base; if its weights are not quantised after all, remove"
        " quantization_config from the config"
    )


def fp8_base(folder: Path) -> Path:
    """A base with one weight in FP8, which its config does not state."""
    tiny_base(folder, layers=1)
    name = "model.layers.0.self_attn.q_proj.weight"
    write_safetensors(folder / "model.safetensors", {name: ("F8_E4M3", (16, 16), bytes(256))})
    return folder


def test_merging_into_an_fp8_weight_is_refused(tmp_path: Path) -> None:
    adapter = tiny_lora(tmp_path / "tone", layers=1, targets=("q_proj",))

    error = refusal(fp8_base(tmp_path / "base"), adapter)

    assert isinstance(error, Unsupported)
    assert (
        error.message
        == "model.layers.0.self_attn.q_proj.weight is F8_E4M3, but only F32, F16 and BF16 weights can be"
        " merged"
    )


def test_a_weight_in_fp8_is_not_cast(tmp_path: Path) -> None:
    adapter = tiny_lora(tmp_path / "tone", layers=1, targets=("q_proj",))

    error = refusal(fp8_base(tmp_path / "base"), adapter, dtype="BF16")

    assert error.message == (
        "--dtype can cast only F32, F16 and BF16 weights,"
        " but model.layers.0.self_attn.q_proj.weight is F8_E4M3"
    )


@pytest.mark.parametrize("there", ["a file", "a model", "an adapter"])
def test_an_existing_target_is_unchanged(there: str, tmp_path: Path) -> None:
    base, adapter, target = tiny_base(tmp_path / "base"), tiny_lora(tmp_path / "tone"), tmp_path / "merged"
    match there:
        case "a file":
            target.write_text("mine")
        case "a model":
            tiny_base(target)
        case _:
            tiny_lora(target)

    error = refusal(base, adapter)

    assert isinstance(error, Conflict)
    assert str(target) in error.message and "choose another place" in error.message
    assert "--force" not in error.message


def test_a_merge_with_all_weights_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="all weights are 0, so the result would be the base"):
        MergeRecipe(
            base="./base", inputs=(RecipeInput(source="./a", weight=0), RecipeInput(source="./b", weight=0))
        )


@pytest.mark.parametrize("text", ["int8", "fp8", "", "float64"])
def test_an_unsupported_dtype_shows_the_supported_ones(text: str) -> None:
    with pytest.raises(Invalid, match=r"unsupported dtype: .* \(float32, float16 or bfloat16\)"):
        parse_dtype(text)


@pytest.mark.parametrize("text", ["5 tons", "-1GB", "", "GB", "1e9"])
def test_the_error_for_a_malformed_size_shows_the_form(text: str) -> None:
    with pytest.raises(Invalid, match=r"not a size: .* \(write 5GB, 512MiB or a number of bytes\)"):
        parse_bytes(text)


@pytest.mark.parametrize("device", ["cuda:99", "nonsense"])
def test_a_missing_device_is_named(device: str, tmp_path: Path) -> None:
    error = refusal(tiny_base(tmp_path / "base"), tiny_lora(tmp_path / "tone"), MergeOptions(device=device))

    assert isinstance(error, Invalid)
    assert error.message.startswith(f"torch cannot use the device {device!r} here: ")


def test_an_unknown_kernel_name_is_refused(tmp_path: Path) -> None:
    error = refusal(tiny_base(tmp_path / "base"), tiny_lora(tmp_path / "tone"), MergeOptions(kernel="numba"))

    assert error.message == "unknown kernel 'numba' (one of: auto, torch, llvm)"


@pytest.mark.parametrize("why", ["its rank", "its width", "a cast"])
def test_an_input_unsupported_by_the_llvm_kernel_fails_before_any_write(why: str, tmp_path: Path) -> None:
    hidden = 16 if why == "its width" else 32
    base = tiny_base(tmp_path / "base", hidden=hidden, layers=1)
    adapter = tiny_lora(tmp_path / "tone", hidden=hidden, layers=1, rank=257 if why == "its rank" else 4)

    error = refusal(base, adapter, MergeOptions(kernel="llvm"), dtype="F16" if why == "a cast" else None)

    assert isinstance(error, Invalid)
    assert "needs the torch kernel (the llvm kernel supports weights that keep their dtype" in error.message
    assert error.message.endswith("try --kernel auto")


def merged_without(modules: list[str], base: Path, adapter: Path, *options: str) -> tuple[int, str]:
    """Exit code and stderr of `adaptry merge` in an interpreter in which `modules` are not installed."""
    code = (
        f"import sys\nfor name in {modules!r}: sys.modules[name] = None\n"
        "from adaptry_cli.main import main\nmain(sys.argv[1:])"
    )
    target = str(base.parent / "merged")
    words = ["merge", "--base", str(base), str(adapter), "-o", target, *options]
    run = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=False, timeout=60
    )
    return run.returncode, run.stderr


@pytest.mark.parametrize(
    ("modules", "options", "hidden", "sentence"),
    [
        (["torch", "llvmlite"], (), 32, "merging needs torch: pip install 'adaptry[torch]'"),
        (["torch"], ("--kernel", "torch"), 32, "merging needs torch: pip install 'adaptry[torch]'"),
        (["torch"], ("--device", "cuda"), 32, "merging needs torch: pip install 'adaptry[torch]'"),
        (["torch"], (), 16, "of at most 192): pip install 'adaptry[torch]'"),
        (["llvmlite"], ("--kernel", "llvm"), 32, "llvmlite and numpy: pip install 'adaptry[torch]'"),
    ],
    ids=["nothing", "no torch", "no torch for a device", "no torch for odd widths", "no llvmlite"],
)
def test_a_missing_package_is_reported_with_its_installation_command(
    modules: list[str], options: tuple[str, ...], hidden: int, sentence: str, tmp_path: Path
) -> None:
    base = tiny_base(tmp_path / "base", hidden=hidden)
    adapter = tiny_lora(tmp_path / "tone", hidden=hidden)

    code, story = merged_without(modules, base, adapter, *options)

    assert (code, story.rstrip().endswith(sentence)) == (8, True), story
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "tone"]


@pytest.mark.parametrize("modules", [["torch"], ["llvmlite"]], ids=["no torch", "no llvmlite"])
def test_one_kernel_is_enough(modules: list[str], tmp_path: Path) -> None:
    base, adapter = tiny_base(tmp_path / "base", hidden=32), tiny_lora(tmp_path / "tone", hidden=32)

    code, story = merged_without(modules, base, adapter)

    assert code == 0, story
    assert (tmp_path / "merged" / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("factor", "says"),
    [(math.nan, "weights_nan"), (0.0, "untrained")],
    ids=["NaN", "all zero"],
)
def test_factors_that_would_spoil_or_do_nothing_are_refused(tmp_path: Path, factor: float, says: str) -> None:
    up = ("F32", (16, 4), struct.pack("<64f", *[factor] * 64))
    names = [
        f"base_model.model.model.layers.{n}.self_attn.{p}_proj.lora_B.weight" for n in (0, 1) for p in "qv"
    ]
    spoiled = tiny_lora(tmp_path / "tone", extra=dict.fromkeys(names, up))
    refused = refusal(tiny_base(tmp_path / "base"), spoiled)
    assert isinstance(refused, CheckFailed)
    assert f"[{says}]" in refused.message


def test_a_blocked_adapter_is_not_merged(tmp_path: Path) -> None:
    lying = tiny_lora(tmp_path / "tone", config={"r": 8})
    refused = refusal(tiny_base(tmp_path / "base"), lying)
    assert isinstance(refused, CheckFailed)
    assert "[rank_mismatch]" in refused.message
