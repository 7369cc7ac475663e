"""`inspect`: the description of an adapter, and what can be done with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adaptry.testing.samples import random_tensor, tiny_lora, write_safetensors

pytestmark = pytest.mark.usefixtures("out", "base")


def test_a_lora_is_shown_with_its_modules_its_cost_and_its_uses(run) -> None:
    run("base", "add", "./base", "--name", "org/tiny")

    text = run("inspect", "./out").stdout

    for expected in (
        "LoRA   rank 4",
        "org/tiny",
        "2 × q_proj   rank 4, scale 2, 16 → 16",
        "512 in F32, 2.0 kB",
        "8.23 % of 6,224 parameters",
        "1.0 kB in bfloat16",
        "yes; compared with PEFT's: bit-equal",
        "it is one",
    ):
        assert expected in text


def test_kohyas_flat_names_are_counted_by_their_last_parts(run, answer, tmp_path: Path) -> None:
    names = [
        f"lora_unet_down_blocks_{block}_attentions_0_transformer_blocks_0_attn1_to_{last}"
        for block in range(4)
        for last in ("q", "out_0")
    ]
    tensors = {f"{name}.lora_down.weight": random_tensor((4, 8), 1) for name in names}
    tensors |= {f"{name}.lora_up.weight": random_tensor((8, 4), 2) for name in names}
    (tmp_path / "style").mkdir()
    write_safetensors(tmp_path / "style" / "style.safetensors", tensors)

    text = run("inspect", "./style").stdout

    assert "4 × attn1_to_q   rank 4" in text and "4 × attn1_to_out   rank 4" in text
    assert {module["path"] for module in answer("inspect", "./style")["modules"]} == set(names)
    assert "4 × rank 4" in run("diff", "./style", "./out").stdout


def test_the_share_of_an_unknown_base_is_left_out(run, answer) -> None:
    assert "share of base" not in run("inspect", "./out").stdout
    assert answer("inspect", "./out")["share"] is None


def test_an_unmergeable_adapter_has_a_reason_and_a_remedy(run, answer, tmp_path: Path) -> None:
    tiny_lora(tmp_path / "routed", config={"arrow_config": {"top_k": 2}})

    seen = answer("inspect", "./routed")

    assert seen["merge"] is False
    assert seen["merge_reason"] in run("inspect", "./routed").stdout


def test_a_prompt_is_shown_by_its_virtual_tokens(run, answer, tmp_path: Path) -> None:
    _prompt(tmp_path / "prompt")

    assert "5 before every input" in run("inspect", "./prompt").stdout
    seen = answer("inspect", "./prompt")
    assert (seen["title"], seen["merge"], seen["as_lora"]) == ("prompt tuning", False, "no")


@pytest.mark.parametrize(
    ("config", "kind", "text"),
    [
        ({"use_dora": True}, "approximate", "approximately, at the rank that `adaptry convert` is given"),
        ({"init_lora_weights": "pissa"}, "given_base", "exactly, for one base's weights, rank 8"),
        ({"alora_invocation_tokens": [1]}, "no", "no"),
        ({"init_lora_weights": "gaussian"}, "itself", "it is one"),
    ],
)
def test_a_lora_variant_shows_how_it_can_become_a_plain_lora(
    config: dict[str, object], kind: str, text: str, run, answer, tmp_path: Path
) -> None:
    tiny_lora(tmp_path / "variant", config=config)

    assert answer("inspect", "./variant")["as_lora"] == kind
    assert f"as LoRA      {text}\n" in run("inspect", "./variant").stdout


def test_absent_numbers_of_a_module_are_left_out(run, tmp_path: Path) -> None:
    _ia3(tmp_path / "scaled")

    text = run("inspect", "./scaled").stdout

    assert "1 × q_proj   ? → 16\n" in text
    assert "as LoRA      approximately" in text


def test_an_unknown_method_is_shown_generically(run, answer, tmp_path: Path) -> None:
    tiny_lora(tmp_path / "new", config={"peft_type": "NEWEST"})

    seen = answer("inspect", "./new")

    assert (seen["title"], seen["merge"], seen["as_lora"]) == ("newest", False, None)
    assert "not known" in run("inspect", "./new").stdout


def _ia3(folder: Path) -> Path:
    """An IA3 of one q_proj, a single vector, as PEFT writes it."""
    folder.mkdir()
    name = "base_model.model.model.layers.0.self_attn.q_proj.ia3_l"
    write_safetensors(folder / "adapter_model.safetensors", {name: random_tensor((16, 1), 1)})
    config = {"peft_type": "IA3", "target_modules": ["q_proj"], "feedforward_modules": []}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def _prompt(folder: Path) -> Path:
    """Five virtual tokens for `org/tiny`, as PEFT's prompt tuning writes them."""
    folder.mkdir()
    write_safetensors(folder / "adapter_model.safetensors", {"prompt_embeddings": random_tensor((5, 16), 1)})
    config = {
        "peft_type": "PROMPT_TUNING",
        "task_type": "CAUSAL_LM",
        "num_virtual_tokens": 5,
        "token_dim": 16,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def test_weights_are_listed_tensor_by_tensor_for_a_folder_and_for_a_version(run, answer) -> None:
    run("push", "./out", "acme/tone")
    listed = [answer("inspect", source, "--weights")["tensors"] for source in ("./out", "acme/tone")]
    norms = [[tensor.pop("norm") for tensor in each] for each in listed]
    assert listed[0] == listed[1]
    assert norms[0] == pytest.approx(
        norms[1], rel=1e-12
    )  # with and without numpy, sums have a different order
    assert len(listed[0]) == 8
    assert all(norm > 0 for norm in norms[0])
    assert not any(tensor["nan"] for tensor in listed[0])
    shown = run("inspect", "acme/tone", "--weights").stdout
    assert f"{norms[0][0]:.6g}" in shown
    assert "tensors" not in answer("inspect", "./out")


def test_statistics_of_weights_are_shown_with_the_version(run, answer, tmp_path: Path) -> None:
    nan = ("F32", (16, 4), b"\x00\x00\xc0\x7f" * 64)
    key = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"
    tiny_lora(tmp_path / "spoiled", extra={key: nan})
    run("push", "./out", "acme/tone")
    run("push", "./spoiled", "acme/tone", "--force", "--reason", "to look into it")

    assert "8 tensors, norm " in run("show", "acme/tone@1").stdout
    shown = run("show", "acme/tone@2").stdout
    assert "64 NaN and 0 infinite elements" in shown
    assert "weights_nan" in shown
    assert answer("show", "acme/tone@2")["inspection"]["nan"] == 64


def test_several_adapters_get_a_row_each(run, tmp_path: Path) -> None:
    tiny_lora(tmp_path / "other", rank=2)
    (tmp_path / "empty").mkdir()

    said = run("inspect", "./out", "./empty", "./other", code=1)

    rows = [line.split() for line in said.stdout.splitlines()]
    assert [row[:3] for row in rows] == [
        ["adapter", "method", "rank"],
        ["./out", "LoRA", "4"],
        ["./other", "LoRA", "2"],
    ]
    assert "error: ./empty: " in said.stderr
    seen = json.loads(run("inspect", "./out", "./empty", "--json", code=1).stdout)
    assert (seen[0]["adapter"], seen[0]["parameters"], "error" in seen[1]) == ("./out", 512, True)
    run("inspect", "./out", "./other", "--weights", code=2)
