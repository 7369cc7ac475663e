"""`check`, and pushes that the checks refuse."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from adaptry.bases.hf_folder import open_checkpoint
from adaptry.testing.samples import tiny_base, tiny_lora, write_safetensors

pytestmark = pytest.mark.usefixtures("out", "base")


def test_an_adapter_that_fits_its_base_passes(run, answer) -> None:
    run("base", "add", "./base", "--name", "org/tiny")

    for source in ("./base", "org/tiny"):
        assert answer("check", "./out", "--base", source)["blocked"] is False


def test_an_adapter_for_another_base_is_blocked_with_a_reason_and_a_remedy(
    run, answer, tmp_path: Path
) -> None:
    tiny_base(tmp_path / "wide", hidden=32)

    report = answer("check", "./out", "--base", "./wide", code=1)

    assert report["blocked"] is True
    assert all(finding["reason"] and finding["remedy"] for finding in report["findings"])
    assert "cannot work as it is" in run("check", "./out", "--base", "./wide", code=1).stderr


def cast_to_float16(base: Path) -> None:
    file = base / "model.safetensors"
    data = file.read_bytes()
    halves = {
        name: ("F16", info.shape, struct.pack(f"<{info.numel}e", *values))
        for name, info in open_checkpoint(base).tensors.items()
        if (values := struct.unpack(f"<{info.numel}f", data[info.start : info.end]))
    }
    write_safetensors(file, halves)


@pytest.fixture
def bases(run, base: Path, tmp_path: Path) -> None:
    """`org/tiny`, and `org/other` with the same shapes; `./cast` is `org/tiny` in another dtype."""
    tiny_base(tmp_path / "other", seed=7)
    cast_to_float16(tiny_base(tmp_path / "cast"))
    run("base", "add", "./base", "--name", "org/tiny")
    run("base", "add", "./other", "--name", "org/other")


def codes(report: dict[str, Any]) -> dict[str, str]:
    return {finding["code"]: finding["severity"] for finding in report["findings"]}


@pytest.mark.usefixtures("bases")
@pytest.mark.parametrize("other", ["org/other", "./other"])
def test_another_base_of_the_same_shapes_blocks_unless_it_is_allowed(run, answer, other: str) -> None:
    run("push", "./out", "acme/tone")

    for source in ("./out", "acme/tone"):
        report = answer("check", source, "--base", other, code=1)
        assert (report["blocked"], codes(report)) == (True, {"other_base": "blocks"})
        assert "org/tiny" in report["findings"][0]["reason"]
        assert "[other_base]" in run("check", source, "--base", other, code=1).stdout

        allowed = answer("check", source, "--base", other, "--other-base")
        assert (allowed["blocked"], codes(allowed)) == (False, {"other_base": "warns"})


@pytest.mark.usefixtures("bases")
@pytest.mark.parametrize("same", ["org/tiny", "./base", "./cast"])
def test_a_copy_of_its_base_does_not_count_as_another_base(run, answer, same: str) -> None:
    run("push", "./out", "acme/tone")

    for source in ("./out", "acme/tone"):
        assert codes(answer("check", source, "--base", same)) == {}


@pytest.mark.usefixtures("bases")
def test_a_folder_is_checked_against_the_registered_base_that_its_config_names(run, answer) -> None:
    assert "against org/tiny, the base that its config names" in run("check", "./out").stderr
    report = answer("check", "./out")
    assert (report["base"], codes(report)) == ("org/tiny", {})


@pytest.mark.usefixtures("bases")
def test_a_folder_that_does_not_fit_its_registered_base_is_blocked(run, tmp_path: Path) -> None:
    tiny_lora(tmp_path / "wide", hidden=32)
    assert "[shape_mismatch]" in run("check", "./wide", code=1).stdout


@pytest.mark.usefixtures("bases")
def test_each_registered_name_of_a_base_is_accepted(run, answer, tmp_path: Path) -> None:
    run("base", "add", "./base", "--name", "a/tiny")
    tiny_lora(tmp_path / "elsewhere", base_name="z/unknown", seed=3)

    run("push", "./out", "acme/tone", "--base", "a/tiny")
    run("push", "./elsewhere", "acme/other", "--base", "org/tiny")

    assert answer("show", "acme/tone")["report"]["findings"] == []
    assert codes(answer("check", "acme/tone")) == codes(answer("check", "./out", "--base", "a/tiny")) == {}
    assert codes(answer("show", "acme/other")["report"]) == {"base_name_differs": "warns"}
    assert codes(answer("check", "acme/other")) == {"base_name_differs": "warns"}


@pytest.mark.usefixtures("bases")
@pytest.mark.parametrize("path", ["base", "models/llama/base"])
def test_a_path_in_the_config_gives_no_finding_if_the_push_recognised_the_base(
    run, answer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    if path != "base":
        (tmp_path / "base").rename(tmp_path / path)
    tiny_lora(tmp_path / "local", base_name=path, seed=3)
    run("push", "./local", "acme/local")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")  # `base` is not a folder there

    shown = answer("show", "acme/local")

    assert (shown["version"]["base_name"], shown["report"]["findings"]) == ("org/tiny", [])
    assert codes(answer("check", "acme/local")) == {}
    assert codes(answer("check", "acme/local", "--base", "org/tiny")) == {}


@pytest.mark.usefixtures("bases")
def test_one_word_in_the_config_is_reported_if_another_base_has_that_name(
    run, answer, tmp_path: Path
) -> None:
    run("base", "add", "./other", "--name", "gpt2")
    tiny_lora(tmp_path / "old", base_name="gpt2", seed=3)

    run("push", "./old", "acme/old", "--base", "org/tiny")

    assert codes(answer("show", "acme/old")["report"]) == {"base_name_differs": "warns"}
    assert codes(answer("check", "acme/old")) == {"base_name_differs": "warns"}


@pytest.mark.usefixtures("bases")
def test_the_name_of_a_cast_of_its_base_is_accepted(run, answer, tmp_path: Path) -> None:
    run("base", "add", "./cast", "--name", "org/cast")
    tiny_lora(tmp_path / "half", base_name="org/cast", seed=3)

    run("push", "./half", "acme/tone", "--base", "org/tiny")

    assert answer("show", "acme/tone")["report"]["findings"] == []
    assert codes(answer("check", "acme/tone")) == {}


def test_a_push_for_another_base_is_refused_unless_forced_with_a_reason(run, answer, tmp_path: Path) -> None:
    tiny_lora(tmp_path / "misfit", hidden=32)
    run("base", "add", "./base", "--name", "org/tiny")

    refused = run("push", "./misfit", "acme/tone", code=1)
    assert refused.stdout == ""
    assert refused.stderr.startswith("error: ")
    run("show", "acme/tone", code=3)

    run("push", "./misfit", "acme/tone", "--force", code=2)
    run("push", "./misfit", "acme/tone", "--force", "--reason", "a test of the worker")
    assert answer("show", "acme/tone")["forced"] == "a test of the worker"


def test_an_adapter_with_an_unknown_base_is_admitted_with_a_warning(run, answer) -> None:
    result = run("push", "./out", "acme/tone")

    assert "warns" in result.stderr
    assert answer("show", "acme/tone")["version"]["base_status"] == "declared"


@pytest.mark.parametrize("written", [None, "/elsewhere/base", "org/other-name"])
def test_the_remedy_for_an_unknown_base_works(run, answer, tmp_path: Path, written: str | None) -> None:
    run("base", "add", "./base", "--name", "org/model")
    tiny_lora(tmp_path / "unnamed", config={"base_model_name_or_path": written})
    said = " ".join(run("check", "./unnamed").stdout.split())
    command = re.search(r"adaptry (push ./unnamed NAME --base BASE)", said)
    assert command is not None, said
    run(*command[1].replace("NAME", "acme/unnamed").replace("BASE", "org/model").split())
    assert answer("show", "acme/unnamed")["version"]["base_status"] == "verified"


def test_remedies_for_a_version_name_it(run, tmp_path: Path) -> None:
    tiny_lora(tmp_path / "unnamed", config={"base_model_name_or_path": None})
    run("push", "./unnamed", "acme/unnamed")
    for command in ("check", "show"):
        assert "adaptry base bind acme/unnamed@1 BASE" in " ".join(
            run(command, "acme/unnamed").stdout.split()
        )


def test_the_weights_of_a_folder_and_the_findings_of_a_push_are_checked(run, answer, tmp_path: Path) -> None:
    module = "base_model.model.model.layers.0.self_attn.q_proj"
    zero = ("F32", (16, 4), bytes(16 * 4 * 4))
    tiny_lora(tmp_path / "untrained", layers=1, targets=("q_proj",), extra={f"{module}.lora_B.weight": zero})
    nan = ("F32", (16, 4), b"\x00\x00\xc0\x7f" * 64)
    tiny_lora(tmp_path / "spoiled", layers=1, targets=("q_proj",), extra={f"{module}.lora_B.weight": nan})

    assert "[untrained]" in run("push", "./untrained", "acme/untrained").stderr
    assert "version 1 has no effect" in run("alias", "set", "acme/untrained@1", "prod").stderr
    assert "[weights_nan]" in run("push", "./spoiled", "acme/spoiled", code=1).stderr
    run("push", "./spoiled", "acme/spoiled", "--force", "--reason", "to look into it")

    assert answer("check", "./spoiled", "--no-weights")["blocked"] is False
    for options in ((), ("--weights",)):
        for source in ("./untrained", "acme/untrained"):
            found = answer("check", source, *options)["findings"]
            assert "untrained" in [one["code"] for one in found]
        for source in ("./spoiled", "acme/spoiled"):
            assert answer("check", source, *options, code=1)["findings"][0]["code"] == "weights_nan"
    assert "it changes nothing" in run("check", "./untrained").stderr


@pytest.mark.parametrize(("added", "code"), [(0.0, "untrained"), (1.0, "modules_untrained")])
def test_a_copy_of_the_bases_head_does_not_make_an_adapter_trained(
    run, answer, base: Path, tmp_path: Path, added: float, code: str
) -> None:
    run("base", "add", "./base", "--name", "org/tiny")
    info = open_checkpoint(base).tensors["lm_head.weight"]
    data = (base / "model.safetensors").read_bytes()[info.start : info.end]
    head = struct.pack(f"<{info.numel}f", *(one + added for one in struct.unpack(f"<{info.numel}f", data)))
    zero = ("F32", (16, 4), bytes(16 * 4 * 4))
    extra = {
        "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight": zero,
        "base_model.model.lm_head.weight": ("F32", info.shape, head),
    }
    saved = {"modules_to_save": ["lm_head"]}
    tiny_lora(tmp_path / "saved", layers=1, targets=("q_proj",), extra=extra, config=saved)

    def found() -> set[str]:
        kinds = ("untrained", "modules_untrained")
        return {
            one
            for source in ("./saved", "acme/saved")
            for one in codes(answer("check", source))
            if one in kinds
        }

    run("push", "./saved", "acme/saved")
    assert found() == {code}
    run("inspect", "acme/saved", "--weights")  # inspects it again
    assert found() == {code}


def test_updates_that_a_merge_would_lose_are_noted_if_the_bases_weights_are_here(
    run, answer, tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    tiny_base(tmp_path / "half", hidden=64, dtype="BF16")
    tiny_lora(tmp_path / "tone", hidden=64, base_name="org/half")
    tensors = load_file(tmp_path / "tone" / "adapter_model.safetensors")
    tiny = {name: one * np.float32(1e-4 if ".lora_B." in name else 1) for name, one in tensors.items()}
    tiny_lora(tmp_path / "small", hidden=64, base_name="org/half")
    save_file(tiny, tmp_path / "small" / "adapter_model.safetensors")

    assert codes(answer("check", "./small", "--base", "./half")) == {"lost_in_merge": "notes"}
    noted = run("check", "./small", "--base", "./half").stdout
    assert "of the updates of model.layers.N.self_attn" in noted and "--dtype float32" in noted
    assert codes(answer("check", "./tone", "--base", "./half")) == {}

    run("base", "add", "./half", "--name", "org/half")
    run("push", "./small", "acme/small")
    assert "lost_in_merge" in codes(answer("check", "./small"))
    assert "lost_in_merge" not in codes(answer("check", "acme/small"))
    assert "lost_in_merge" in codes(answer("check", "acme/small", "--weights"))


def test_a_push_is_checked_against_a_folder_with_a_base_that_is_not_registered(
    run, answer, tmp_path: Path
) -> None:
    tiny_base(tmp_path / "wide", hidden=32)

    refused = run("push", "./out", "acme/tone", "--base", "./wide", code=1).stderr
    assert "[shape_mismatch]" in refused
    assert "(checked against the base in wide)" in refused
    run("push", "./out", "acme/tone", "--base", "./base")
    run("push", "./out", "acme/forced", "--base", "./wide", "--force", "--reason", "to look into it")


@pytest.mark.usefixtures("bases")
def test_a_push_names_only_the_model_in_the_folder_of_the_config(run, tmp_path: Path) -> None:
    """The two bases have equal shapes. A path that does not exist on this machine is not a contradiction."""
    tiny_lora(tmp_path / "local", base_name="./base", seed=3)
    tiny_lora(tmp_path / "away", base_name="/data/base", seed=3)

    for other in ("org/other", "./other"):
        refused = run("push", "./local", "acme/local", "--base", other, code=1).stderr
        assert "is another model: the weights differ in" in refused
        assert "its config names the base in" in refused
    run("push", "./local", "acme/local", "--base", "org/other", "--force", "--reason", "the folder is new")
    run("push", "./local", "acme/other", "--base", "org/tiny")
    run("push", "./away", "acme/away", "--base", "org/other")


@pytest.mark.parametrize("command", ["export --for llama.cpp", "merge", "convert --rank 2"])
@pytest.mark.usefixtures("bases")
def test_no_file_is_made_with_another_model_than_the_folder_in_the_config(
    run, tmp_path: Path, command: str
) -> None:
    """The bases have equal shapes. A copy in another dtype is not a different model, and a name that does not
    exist on this machine is not a contradiction.
    """
    tiny_lora(tmp_path / "local", base_name="./base", seed=3)
    tiny_lora(tmp_path / "named", base_name="org/elsewhere", seed=3)
    first, *options = command.split()

    for number, other in enumerate(("org/other", "./other")):
        if first == "merge" and other == "org/other":
            continue  # its weights are not in the registry
        made = f"./made-{number}"
        refused = run(first, "./local", *options, "--base", other, "-o", made, code=1).stderr
        assert "the weights differ in" in refused and "--other-base" in refused
        assert not Path(made).exists()
        run(first, "./local", *options, "--base", other, "--other-base", "-o", made)
    for number, same in enumerate(("./base", "./cast")):
        run(first, "./local", *options, "--base", same, "-o", f"./same-{number}")
    run(first, "./named", *options, "--base", "./other", "-o", "./named-other")


@pytest.mark.usefixtures("bases")
def test_a_version_is_exported_only_for_its_own_model(run) -> None:
    run("push", "./out", "acme/tone", "--base", "org/tiny")
    refused = run("export", "acme/tone", "--for", "llama.cpp", "--base", "./other", "-o", "./made", code=1)
    assert "acme/tone@1 is for the base org/tiny" in refused.stderr and "--other-base" in refused.stderr
    run("export", "acme/tone", "--for", "llama.cpp", "--base", "./base", "-o", "./made")


@pytest.mark.usefixtures("bases")
def test_a_path_in_the_config_of_a_version_is_not_looked_up_on_this_machine(run, tmp_path: Path) -> None:
    """The path belongs to the machine that pushed the version; here, it may lead to another model."""
    tiny_lora(tmp_path / "away", base_name="./later", seed=3)
    run("push", "./away", "acme/away")
    tiny_base(tmp_path / "later", seed=9)
    run("merge", "acme/away", "--base", "./base", "-o", "./merged")
    run("convert", "acme/away", "--base", "./base", "--rank", "2", "-o", "./converted")
    run("export", "acme/away", "--for", "llama.cpp", "--base", "./base", "-o", "./exported")


@pytest.mark.usefixtures("bases")
def test_several_adapters_get_a_line_each_and_one_that_cannot_be_read_stops_no_other(
    run, answer, tmp_path: Path
) -> None:
    tiny_lora(tmp_path / "wide", hidden=32)
    (tmp_path / "empty").mkdir()

    said = run("check", "./out", "./empty", "./wide", code=1)

    lines = said.stdout.splitlines()
    assert [line.partition(": ")[0] for line in lines] == ["./out", "./empty", "./wide"]
    assert lines[0] == "./out: no findings; it can be used, against org/tiny, the base that its config names"
    assert "[shape_mismatch" in lines[2]
    assert "checked 3 adapters; 2 cannot be used" in said.stderr
    assert "checked 2 adapters; all can be used" in run("check", "./out", "./out").stderr
    good, empty, wide = json.loads(run("check", "./out", "./empty", "./wide", "--json", code=1).stdout)
    assert (good["adapter"], good["blocked"], wide["blocked"]) == ("./out", False, True)
    assert empty["error"]["message"] in lines[1]
    assert good["findings"] == answer("check", "./out")["findings"]
