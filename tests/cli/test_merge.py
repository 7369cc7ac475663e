"""`adaptry merge`: adapters by ref or folder, a base by name or folder, and a checkpoint as the result."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from adaptry.adapters.adapter import open_dir
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.testing.samples import tiny_base, tiny_lora

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.torch")
pytestmark = pytest.mark.usefixtures("out", "better", "base")

QUERY = "model.layers.0.self_attn.q_proj.weight"


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def test_a_folder_is_merged_into_a_folder(run, base: Path) -> None:
    result = run("merge", "--base", "./base", "./out", "--to", "./merged")

    assert result.stdout == "merged\n"
    assert "4 weights changed" in result.stderr
    written = open_checkpoint("merged")
    assert written.tensors.keys() == open_checkpoint(base).tensors.keys()
    assert weights(Path("merged")) != weights(base)
    assert json.loads(Path("merged/config.json").read_text()) == json.loads(
        (base / "config.json").read_text()
    )


def test_a_merge_that_changes_no_value_warns(run, answer) -> None:
    result = run("merge", "--base", "./base", "./out=1e-30", "-o", "./merged")
    told = answer("merge", "--base", "./base", "./out=1e-30", "-o", "./again")

    assert "warning: no value changed: the result has the base's weights" in result.stderr
    assert "0 of 4 weights changed" in result.stderr
    assert (told["baked"], told["changed"]) == (4, 0)


@pytest.mark.parametrize(
    "options",
    [(), ("--rounding", "peft"), ("--method", "svd"), ("--dtype", "bfloat16"), ("--dry-run",)],
    ids=["sum", "peft", "svd", "cast", "dry-run"],
)
def test_updates_that_cancel_are_refused(run, options: tuple[str, ...]) -> None:
    same = run("merge", "--base", "./base", "./out", "./out=-1", *options, "-o", "./zero", code=1)
    run("combine", "./out", "./better=0.5", "-o", "./both")
    inputs = ("./both", "./out=-1", "./better=-0.5")
    parts = run("merge", "--base", "./base", *inputs, *options, "-o", "./zero", code=1)

    assert "would change nothing" in same.stderr and "would change nothing" in parts.stderr
    assert not Path("zero").exists()


@pytest.mark.parametrize("method", ["dare_linear", "della_linear"])
def test_updates_that_cancel_in_a_dense_sum_are_refused(run, method: str) -> None:
    inputs = ("merge", "--base", "./base", "./out", "./out=-1", "--method", method, "--param", "density=1")

    refused = run(*inputs, "-o", "./zero", code=1)

    assert "would change nothing" in refused.stderr
    assert not Path("zero").exists()


def test_an_adapter_that_is_the_negative_of_another_cancels_it(run) -> None:
    shutil.copytree("out", "negative")
    tensors = safetensors.load_file("negative/adapter_model.safetensors")
    negative = {name: -one if ".lora_B." in name else one for name, one in tensors.items()}
    safetensors.save_file(negative, "negative/adapter_model.safetensors")

    refused = run("merge", "--base", "./base", "./out", "./negative", "-o", "./zero", code=1)

    assert "would change nothing" in refused.stderr


def test_an_adapter_of_another_method_that_cancels_itself_is_refused(run, base: Path) -> None:
    rows = open_checkpoint(base).tensors[QUERY].shape[0]
    config = {"peft_type": "IA3", "target_modules": ["q_proj"], "feedforward_modules": []}
    scales = torch.linspace(0.9, 1.1, rows).reshape(rows, 1)
    name = f"base_model.model.{QUERY.removesuffix('.weight')}.ia3_l"
    Path("ia3").mkdir()
    Path("ia3/adapter_config.json").write_text(json.dumps(config))
    safetensors.save_file({name: scales}, "ia3/adapter_model.safetensors")

    run("merge", "--base", "./base", "./ia3", "./ia3=-0.5", "-o", "./half")
    refused = run("merge", "--base", "./base", "./ia3", "./ia3=-1", "-o", "./zero", code=1)

    assert "would change nothing" in refused.stderr


def test_weights_whose_updates_cancel_are_counted(run, answer) -> None:
    module = QUERY.removesuffix(".weight")
    Path("recipe.yaml").write_text(
        f"inputs: [./out, ./better]\nmodules: [{{match: '{module}', weights: {{./better: 0}}}}]\n"
    )
    run("combine", "--recipe", "recipe.yaml", "-o", "./both")

    merged = ("merge", "--base", "./base", "./both", "./out=-1")
    result = run(*merged, "-o", "./rest")
    planned = answer(*merged, "-o", "./plan", "--dry-run")

    note = f"the updates are 0 or cancel each other in 1 of 4 weights (first: {QUERY})"
    assert note in result.stderr
    assert note in planned["notes"]


def test_a_merge_whose_result_is_too_large_is_refused(run) -> None:
    result = run("merge", "--base", "./base", "./out=1e9", "--dtype", "float16", "-o", "./merged", code=1)

    assert "infinite or NaN values that the base does not have, in 4 tensors" in result.stderr
    assert "Choose smaller weights, or --dtype float32 (or bfloat16)" in result.stderr
    assert not Path("merged").exists()


def test_a_version_is_merged_under_any_of_its_names(run, answer) -> None:
    digest = run("push", "./out", "acme/tone", "--alias", "prod").stdout.split()[1]
    run("push", "./better", "acme/tone")

    for number, ref in enumerate(("acme/tone@1", "acme/tone@prod", f"acme/tone@{digest}")):
        record = answer("merge", "--base", "./base", ref, "-o", f"./merged-{number}")
        assert record["inputs"][0]["revision"] == digest
    run("merge", "--base", "./base", "./out", "-o", "./from-folder")

    assert len({weights(Path(name)) for name in ("merged-0", "merged-1", "merged-2", "from-folder")}) == 1


def test_the_record_lists_inputs_and_outputs(run, answer) -> None:
    base_id = run("base", "add", "./base", "--name", "org/tiny").stdout.strip()
    digest = run("push", "./out", "acme/tone").stdout.split()[1]

    told = answer("merge", "--base", "org/tiny", "acme/tone=0.5", "-o", "./merged")

    written = json.loads(Path("merged/adaptry_merge.json").read_text())
    assert told == {"output": "merged", **written}
    assert written["base"] == base_id
    assert written["recipe"]["inputs"] == [{"source": "acme/tone", "weight": 0.5}]
    (entry,) = written["inputs"]
    assert (entry["source"], entry["weight"], entry["revision"]) == ("acme/tone@1", 0.5, digest)
    assert entry["weights"] == str(open_dir("out").weights_digest())
    assert [file["path"] for file in written["files"]] == ["model.safetensors"]
    assert written["baked"] == 4


def test_weights_scale_each_adapter(run) -> None:
    run("merge", "--base", "./base", "./out=0.5", "./better=-1", "-o", "./both")
    run("merge", "--base", "./base", "./out=0.5", "-o", "./half")
    run("merge", "--base", "./base", "./out", "-o", "./full")

    assert len({weights(Path(name)) for name in ("both", "half", "full", "base")}) == 4


def test_a_base_is_found_by_name_in_its_last_known_folder(run) -> None:
    run("base", "add", "./base", "--name", "org/tiny")

    run("merge", "--base", "org/tiny", "./out", "-o", "./merged")

    run("merge", "--base", "./base", "./out", "-o", "./again")
    assert weights(Path("merged")) == weights(Path("again"))


def test_a_base_that_was_moved_must_be_passed_again(run, base: Path) -> None:
    run("base", "add", "./base", "--name", "org/tiny")
    shutil.rmtree(base)

    message = run("merge", "--base", "org/tiny", "./out", "-o", "./merged", code=3).stderr

    assert "adaptry base add FOLDER --name org/tiny --store" in message


def test_a_stored_base_needs_no_folder(run, base: Path) -> None:
    run("merge", "--base", "./base", "./out", "-o", "./before")
    run("base", "add", "./base", "--name", "org/tiny", "--store")
    shutil.rmtree(base)

    run("merge", "--base", "org/tiny", "./out", "-o", "./after")

    assert weights(Path("before")) == weights(Path("after"))


def test_a_dry_run_shows_the_result_and_writes_nothing(run, answer, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())

    result = run("merge", "--base", "./base", "./out", "-o", "./merged", "--dry-run")
    plan = answer("merge", "--base", "./base", "./out", "-o", "./merged", "--dry-run")

    assert "model.safetensors" in result.stdout
    assert "4 weights would change" in result.stderr
    assert sorted(tmp_path.iterdir()) == before
    run("merge", "--base", "./base", "./out", "-o", "./merged")
    assert plan["files"] == [{"path": "model.safetensors", "size": len(weights(Path("merged")))}]
    assert plan["baked"] == 4


def test_a_dry_run_warns_of_updates_that_rounding_would_lose(run, answer, tmp_path: Path) -> None:
    tiny_base(tmp_path / "half", hidden=64, dtype="BF16")
    tiny_lora(tmp_path / "tone", hidden=64)

    lost = ["merge", "--base", "./half", "./tone=1e-4", "-o", "./merged"]
    warning = run(*lost, "--dry-run").stderr

    assert "warning: in 4 weights, most of the update would be lost (model.layers.N.self_attn." in warning
    named = answer(*lost, "--dry-run")["lost_to_rounding"]
    assert "most of the update was lost" in run(*lost).stderr
    assert sorted(named) == sorted(answer(*lost[:-1], "./again")["lost_to_rounding"])
    assert len(named) == 4

    assert "warning" not in run("merge", "--base", "./half", "./tone", "-o", "./new", "--dry-run").stderr
    assert "warning" not in run(*lost, "--dry-run", "--dtype", "float32").stderr


def test_the_result_has_the_requested_dtype_and_shard_size(run, tmp_path: Path) -> None:
    tiny_base(tmp_path / "wide", hidden=256, layers=1, shards=2)
    tiny_lora(tmp_path / "tone", hidden=256, layers=1)

    run("merge", "--base", "./wide", "./tone", "-o", "./one", "--dtype", "bf16", "--max-shard-size", "1GB")
    run("merge", "--base", "./wide", "./tone", "-o", "./many", "--max-shard-size", "1MiB")

    assert {info.dtype for info in open_checkpoint("one").tensors.values()} == {"BF16"}
    assert list(open_checkpoint("one").shards) == ["model.safetensors"]
    assert len(open_checkpoint("many").shards) > 2
    assert json.loads(Path("one/config.json").read_text())["torch_dtype"] == "bfloat16"


def test_kernels_agree_and_hashing_can_be_left_out(run, answer) -> None:
    tiny_base(Path("wide"), hidden=32)
    tiny_lora(Path("tone"), hidden=32)

    ours = answer("merge", "--base", "./wide", "./tone", "-o", "./llvm", "--kernel", "llvm", "--no-hash")
    torchs = answer("merge", "--base", "./wide", "./tone", "-o", "./torch", "--kernel", "torch")

    assert (ours["kernels"], ours["files"]) == (["llvm"], [])
    assert (torchs["kernels"], len(torchs["files"])) == (["torch"], 1)
    assert weights(Path("llvm")) == weights(Path("torch"))


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("./out=0",), 2, "all weights are 0"),
        (("./out=nan",), 2, "nan"),
        (("./out", "--dtype", "int8"), 2, "float32, float16 or bfloat16"),
        (("./out", "--max-shard-size", "big"), 2, "5GB"),
        (
            ("./out", "--max-shard-size", "10kB"),
            2,
            "(--max-shard-size) must be at least 1 MiB",
        ),
        (("./out=0",), 2, "all weights are 0"),
        (("./out", "--kernel", "fast"), 2, "auto"),
        (("./out", "--device", "cuda:99"), 2, "torch cannot use the device 'cuda:99' here"),
        (("./nowhere",), 3, "no folder at"),
        (("acme/none",), 3, "acme/none"),
        (("out",), 2, "./out"),
        (("./base",), 3, "whole model"),
        (("./foreign",), 1, "this is not the base it was trained on"),
        (("./dora",), 1, "save it again with PEFT's model.save_pretrained"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_an_impossible_merge_gives_a_sentence_and_an_exit_code(
    run, tmp_path: Path, words: tuple[str, ...], code: int, says: str
) -> None:
    tiny_lora(tmp_path / "foreign", hidden=32)
    tiny_lora(tmp_path / "dora", config={"use_dora": True})

    result = run("merge", "--base", "./base", *words, "-o", "./merged", code=code)

    assert says in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    assert not Path("merged").exists()


def test_another_base_with_the_same_shapes_is_refused_unless_allowed(run, answer, tmp_path: Path) -> None:
    run("base", "add", "./base", "--name", "org/tiny")
    run("push", "./out", "acme/tone", "--base", "org/tiny")
    tiny_base(tmp_path / "stranger", seed=9)

    assert answer("merge", "--base", "./base", "acme/tone", "-o", "./right")["notes"] == []
    refused = run("merge", "--base", "./stranger", "acme/tone", "-o", "./wrong", code=1)
    run("merge", "--base", "./stranger", "acme/tone", "--other-base", "-o", "./asked")

    assert "acme/tone@1 is for the base org/tiny, and the base in" in refused.stderr
    assert "stranger is another model: the weights differ in" in refused.stderr
    assert "--other-base" in refused.stderr
    assert not Path("wrong").exists()
    assert json.loads(Path("asked/adaptry_merge.json").read_text())["notes"] != []


def test_an_existing_output_folder_is_a_conflict(run) -> None:
    run("merge", "--base", "./base", "./out", "-o", "./merged")

    again = run("merge", "--base", "./base", "./better", "-o", "./merged", code=4)

    assert "choose another place" in again.stderr


def test_an_unknown_base_is_not_found(run) -> None:
    assert "org/none" in run("merge", "--base", "org/none", "./out", "-o", "./merged", code=3).stderr


@pytest.mark.skipif(sys.platform == "darwin", reason="names of files are UTF-8 there")
def test_folders_whose_names_are_not_utf8_are_merged_combined_and_extracted(
    run, out: Path, base: Path
) -> None:
    for folder in (out, base):
        folder.rename(folder.with_name(f"{folder.name}-caf\udce9"))

    run("merge", "./out-caf\udce9", "--base", "./base-caf\udce9", "-o", "./merged")
    record = json.loads(Path("merged/adaptry_merge.json").read_text())
    assert record["inputs"][0]["source"] == record["recipe"]["inputs"][0]["source"] == r"./out-caf\udce9"
    assert record["recipe"]["base"] == r"./base-caf\udce9"

    run("combine", "./out-caf\udce9", "./better", "-o", "./both", "--heatmap", "./both.png")
    assert Path("both.png").read_bytes().startswith(b"\x89PNG")

    run("extract", "./merged", "--base", "./base-caf\udce9", "--rank", "2", "-o", "./extracted")
    assert run("check", "./extracted", "--base", "./base-caf\udce9")
