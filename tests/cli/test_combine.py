"""`adaptry combine` and `stack`: from refs or folders, to a folder or to a version with its lineage."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from adaptry.adapters.adapter import open_dir
from adaptry.testing.samples import random_tensor, tiny_lora, write_safetensors

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.torch")
pytestmark = pytest.mark.usefixtures("out", "better", "base")

QUERY = "model.layers.0.self_attn.q_proj"


@pytest.fixture
def pushed(run) -> None:
    """Pushes `acme/a` and `acme/b`, adapters of a registered base."""
    run("base", "add", "./base", "--name", "org/tiny")
    run("push", "./out", "acme/a")
    run("push", "./better", "acme/b")


def update(folder: Path | str, module: str = QUERY) -> torch.Tensor:
    """A module's update in float64, as any reader of PEFT's layout computes it."""
    adapter = open_dir(folder)
    tensors = safetensors.load_file(Path(folder) / "adapter_model.safetensors")
    found = next(each for each in adapter.spec.modules if each.path == module)
    down, up = (tensors[found.tensors[role]].double() for role in "AB")
    return up @ down * found.scale


def test_a_stack_acts_as_all_its_parts_together(run) -> None:
    result = run("stack", "./out", "./better=0.5", "-o", "./both")

    assert result.stdout == "both\n"
    assert "exact" in result.stderr
    stacked = open_dir("both")
    assert torch.allclose(update("both"), update("out") + 0.5 * update("better"), atol=1e-9)
    assert stacked.spec.ranks == (4 + 8,)
    assert {module.scale for module in stacked.spec.modules} == {1.0}
    assert stacked.config.fields["r"] == stacked.config.fields["lora_alpha"] == 12


@pytest.mark.slow
def test_the_conversion_that_an_error_suggests_makes_another_method_combinable(run) -> None:
    """A LoHa, whose update is (W1a W1b) ∘ (W2a W2b)."""
    shapes = {"hada_w1_a": (16, 2), "hada_w1_b": (2, 16), "hada_w2_a": (16, 2), "hada_w2_b": (2, 16)}
    Path("loha").mkdir()
    config = {"peft_type": "LOHA", "r": 2, "alpha": 2, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}
    Path("loha/adapter_config.json").write_text(json.dumps(config))
    write_safetensors(
        Path("loha/adapter_model.safetensors"),
        {
            f"base_model.model.{QUERY}.{role}": random_tensor(shape, seed, scale=0.5)
            for seed, (role, shape) in enumerate(shapes.items())
        },
    )

    refused = run("combine", "./out", "./loha", "-o", "./both", code=2).stderr
    (command,) = re.findall(r"`adaptry ([^`]*)`", refused)
    made = run(*shlex.split(command)).stdout.strip()
    run("combine", "./out", f"./{made}", "-o", "./both")

    assert "./loha is LoHa, not LoRA" in refused
    assert torch.allclose(update("both"), update("out") + update(made), atol=1e-6)


def test_a_result_in_the_registry_names_its_parents_and_its_recipe(run, answer, pushed: None) -> None:
    told = answer("combine", "acme/a", "acme/b=0.5", "--method", "svd", "--rank", "2", "-o", "acme/both")

    shown = answer("show", "acme/both")
    parents = [answer("show", f"acme/{name}")["version"]["digest"] for name in "ab"]
    assert shown["manifest"]["parents"] == parents
    recipe = shown["manifest"]["recipe"]
    assert recipe["operation"] == "combine" and recipe["method"] == "svd" and recipe["rank"] == 2
    assert recipe["inputs"] == [
        {"revision": parents[0], "weight": 1.0},
        {"revision": parents[1], "weight": 0.5},
    ]
    assert shown["manifest"]["provenance"].keys() >= {"adaptry", "torch"}
    assert shown["version"]["base_status"] == "verified"
    assert told["digest"] == shown["version"]["digest"] and 0 < told["kept_energy"] < 1


def test_the_same_recipe_gives_the_same_version_however_it_is_written(run, answer, pushed: None) -> None:
    run("alias", "set", "acme/a@1", "prod")
    Path("recipe.yaml").write_text(
        "method: svd\nrank: 2\ninputs:\n  - acme/a@prod\n  - source: acme/b\n    weight: 0.5\noutput:"
        " acme/both\n"
    )
    words = ("combine", "acme/a@1", "acme/b@1=0.5", "--method", "svd", "--rank", "2", "-o", "acme/both")

    first, again, from_file = answer(*words), answer(*words), answer("combine", "--recipe", "recipe.yaml")

    assert first["is_new"] and not again["is_new"] and not from_file["is_new"]
    assert first["digest"] == again["digest"] == from_file["digest"]


def test_the_recipe_identifies_folders_by_their_content(run, answer, pushed: None) -> None:
    answer("stack", "./out", "acme/b", "-o", "acme/both")

    folder, _ = answer("show", "acme/both")["manifest"]["recipe"]["inputs"]
    assert folder["weights"] == str(open_dir("out").weights_digest()) and "config" in folder
    assert "out" not in json.dumps(folder)


def test_a_plan_shows_the_steps_and_writes_nothing(run, answer) -> None:
    plan = answer("combine", "./out", "./better", "--method", "svd", "--energy", "0.9", "--dry-run")
    shown = run("combine", "./out", "./better", "--dry-run")

    assert {row["module"] for row in plan["modules"]} == {m.path for m in open_dir("out").spec.modules}
    assert {tuple(row["ranks"]) for row in plan["modules"]} == {(4, 8)}
    assert plan["memory"] > 0 and plan["size"] > 0 and plan["seconds"] >= 0
    assert "4 + 8" in shown.stdout and "memory" in shown.stderr
    assert "2 × model.layers.N.self_attn.q_proj" in shown.stdout
    assert len(shown.stdout.splitlines()) == 1 + len(plan["modules"]) // 2


def test_a_plan_reads_no_weight(run) -> None:
    weights = Path("out/adapter_model.safetensors")
    data = bytearray(weights.read_bytes())
    start = open_dir("out").header.data_start
    data[start:] = b"\xff" * (len(data) - start)  # all of them are NaN
    weights.write_bytes(data)

    run("combine", "./out", "./better", "--dry-run")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--method", "average"), "unknown method 'average' (one of: linear"),
        (("--method", "svd", "--param", "density=0.5"), "has no parameter 'density'"),
        (("--param", "density"), "write name=value"),
        (("--rank", "4", "--energy", "0.9"), "rank or energy, not both"),
        (("--dtype", "int8"), "unsupported dtype"),
    ],
)
def test_errors_in_a_recipe_are_reported_before_any_work(run, words: tuple[str, ...], says: str) -> None:
    result = run("combine", "./out", "./better", *words, "-o", "./both", code=2)

    assert says in result.stderr
    assert not Path("both").exists()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("inputs: [./out]\ninputs: [./better]\n", "'inputs' twice"),
        ("inputs: &x [./out]\nmodules: *x\n", "alias"),
        ("inputs: [./out]\nmethd: ties\n", "methd"),
        ("inputs: [./out=x]\n", "not a weight"),
        ("- ./out\n", "not a mapping"),
        ("inputs: [./out\n", "not YAML"),
        ("inputs: []\n", "inputs"),
        ("inputs: [./out]\nmodules: [{match: nowhere, rank: 2}]\noutput: ./both\n", "matches none"),
    ],
)
def test_errors_of_a_recipe_file_name_the_field(run, text: str, says: str) -> None:
    Path("recipe.yaml").write_text(text)

    result = run("combine", "--recipe", "recipe.yaml", "-o", "./both", code=1 if "nowhere" in text else 2)

    assert says in result.stderr


def test_some_modules_may_use_another_method(run) -> None:
    Path("recipe.yaml").write_text(
        "inputs: [./out, ./better]\n"
        "modules:\n"
        "  - match: layers.0.self_attn.q_proj\n"
        "    weights: {./out: 0}\n"
        "  - match: layers.1.*\n"
        "    method: svd\n"
        "    rank: 3\n"
    )

    run("combine", "--recipe", "recipe.yaml", "-o", "./both")

    ranks = {module.path: module.rank for module in open_dir("both").spec.modules}
    assert ranks[QUERY] == 8 and ranks["model.layers.1.self_attn.q_proj"] == 3
    assert torch.allclose(update("both"), update("better"), atol=1e-9)
    other = "model.layers.0.self_attn.v_proj"
    assert torch.allclose(update("both", other), update("out", other) + update("better", other), atol=1e-9)


def test_an_input_with_weight_zero_counts_as_absent(run) -> None:
    run("combine", "./out", "./better=0", "-o", "./one")

    assert torch.allclose(update("one"), update("out"), atol=1e-9)
    assert open_dir("one").spec.ranks == (4,)


def test_adapters_of_different_bases_are_combined_only_on_request(
    run, answer, pushed: None, tmp_path: Path
) -> None:
    from adaptry.testing.samples import tiny_base

    tiny_base(tmp_path / "other", seed=7)
    run("base", "add", "./other", "--name", "org/other")
    run("push", "./out", "acme/c", "--base", "org/other")

    refused = run("stack", "acme/a", "acme/c", "-o", "acme/both", code=1)
    run("stack", "acme/a", "acme/c", "--other-base", "-o", "acme/both")

    assert "acme/c@1 is for the base org/other, but acme/a@1 for org/tiny: the weights" in refused.stderr
    assert "--other-base" in refused.stderr


def test_a_sequence_states_its_assumptions(run) -> None:
    result = run("stack", "./out=0.5", "./better", "--in-sequence", "-o", "./both")

    assert "assumed: ./better was trained on the base with ./out merged in" in result.stderr
    assert "a weight other than 1" in result.stderr


def test_adapters_that_are_not_plain_loras_are_refused_with_convert_as_the_remedy(run) -> None:
    config = Path("out/adapter_config.json")
    config.write_text(json.dumps({**json.loads(config.read_text()), "init_lora_weights": "pissa"}))

    result = run("stack", "./out", "./better", "-o", "./both", code=2)

    assert "adaptry convert" in result.stderr


def test_an_output_is_required_and_nothing_is_replaced_by_default(run) -> None:
    missing = run("stack", "./out", "./better", code=2)
    run("stack", "./out", "./better", "-o", "./both")
    run("stack", "./out", "./better=2", "-o", "./both", code=4)
    run("stack", "./out", "./better=2", "-o", "./both", "--force")

    assert "-o NAME" in missing.stderr
    assert torch.allclose(update("both"), update("out") + 2 * update("better"), atol=1e-9)


def test_the_methods_are_listed_with_their_parameters(run, answer) -> None:
    assert "linear" in run("combine", "--methods").stdout
    assert answer("combine", "--methods")["svd"]["source"]


def test_half_precision_is_written_on_request(run, tmp_path: Path) -> None:
    tiny_lora(tmp_path / "third", rank=2, seed=3)
    run("stack", "./out", "./third", "--dtype", "bf16", "-o", "./both")

    assert open_dir("both").spec.dtypes == ("BF16",)
    assert torch.allclose(update("both"), update("out") + update("third"), rtol=2e-2, atol=1e-4)


def test_a_replay_of_peft_whose_updates_cancel_is_refused(run) -> None:
    for mode in ("linear", "cat", "svd", "ties"):
        run("combine", "./out", "./out=0.5", "--method", f"peft:{mode}", "-o", f"./{mode}")
        refused = run(
            "combine", "./out", "./out=-1", "--method", f"peft:{mode}", "-o", f"./zero-{mode}", code=1
        )

        assert "would change nothing" in refused.stderr
        assert not Path(f"zero-{mode}").exists()


@pytest.mark.parametrize("options", [(), ("--method", "svd"), ("--rank", "2")], ids=["sum", "svd", "rank"])
def test_updates_that_cancel_are_refused(run, options: tuple[str, ...]) -> None:
    run("combine", "./out", "./better=0.5", "-o", "./both")
    result = run("combine", "./both", "./out=-1", "./better=-0.5", *options, "-o", "./zero", code=1)

    assert "would change nothing" in result.stderr
    assert not Path("zero").exists()


def test_modules_whose_updates_cancel_are_counted(run) -> None:
    Path("recipe.yaml").write_text(
        f"inputs: [./out, ./better]\nmodules: [{{match: '{QUERY}', weights: {{./better: 0}}}}]\n"
    )
    run("combine", "--recipe", "recipe.yaml", "-o", "./both")
    result = run("combine", "./both", "./out=-1", "-o", "./rest")

    assert f"the update is 0 in 1 of 4 modules (first: {QUERY})" in result.stderr


def test_an_adapter_that_cannot_become_a_lora_is_refused_without_advice_to_convert_it(run) -> None:
    files = Path("./prompt")
    files.mkdir()
    config = {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 2, "task_type": "CAUSAL_LM"}
    (files / "adapter_config.json").write_text(json.dumps(config))
    safetensors.save_file({"prompt_embeddings": torch.ones(2, 16)}, files / "adapter_model.safetensors")

    assert "leave it out" in run("combine", "./out", "./prompt", "-o", "./both", code=2).stderr
