"""Errors name arguments in Python programs, and options on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

import adaptry
from adaptry.facade.python_errors import with_arguments
from adaptry.testing.samples import tiny_lora


@pytest.mark.parametrize(
    ("function", "message", "expected"),
    [
        (adaptry.merge, "pass --other-base if you want it", "pass other_base=True if you want it"),
        (adaptry.merge, "merge it as --other-base allows", "merge it as other_base=True allows"),
        (adaptry.merge, "pass --base-copy original to merge", 'pass base_copy="original" to merge'),
        (adaptry.merge, "try --dtype float32 (or bfloat16)", 'try dtype="float32" (or bfloat16)'),
        (adaptry.convert, "pass --rank N or --energy 0.99.", "pass rank=N or energy=0.99."),
        (adaptry.convert, "pass its base with --base, or", "pass its base with base=…, or"),
        (adaptry.convert, "pass --base ./DIR", 'pass base="./DIR"'),
        (adaptry.export, "omit --exact, or merge it (--format checkpoint)", None),
        (adaptry.export, "export it with --for llama.cpp", 'export it with engine="llama.cpp"'),
        (adaptry.combine, "replace it with --force", "replace it with replace=True"),
    ],
)  # fmt: skip
def test_an_option_in_a_message_becomes_the_argument_of_the_function(
    function: object, message: str, expected: str | None
) -> None:
    assert callable(function)
    expected = expected or 'omit exact=True, or merge it (format="checkpoint")'
    assert with_arguments(message, function) == expected


@pytest.mark.parametrize(
    "message",
    [
        "correct its names: adaptry export REF --for peft --base BASE -o ./DIR; or save it again",
        "store the weights with `adaptry base add FOLDER --store --base x`",
        "start the server with a larger --max-lora-rank",
    ],
)
def test_commands_and_options_of_other_programs_stay_as_they_are(message: str) -> None:
    assert with_arguments(message, adaptry.export) == message


def test_the_notes_of_a_result_name_arguments_too(tmp_path: Path) -> None:
    made = adaptry.export(tiny_lora(tmp_path / "out"), engine="vllm", to=tmp_path / "for-vllm").result
    assert made.notes[0].endswith(
        "were not compared with it: pass the base with base=… (a folder, or the name of a registered base)"
    )


def test_a_refused_pull_and_a_refused_export_name_the_argument_to_pass(tmp_path: Path) -> None:
    there, adapter = tiny_lora(tmp_path / "there", seed=1), tiny_lora(tmp_path / "other", seed=2)
    registry = str(tmp_path / "registry")
    adaptry.push(registry, adapter, "acme/tone")

    with pytest.raises(adaptry.errors.Conflict) as refused:
        adaptry.pull(registry, "acme/tone", there)
    assert "replace=True" in str(refused.value)
    assert "--" not in str(refused.value)
    assert refused.value.message == str(refused.value)

    with pytest.raises(adaptry.errors.AdaptryError) as unwritten:
        adaptry.export(adapter, engine="llama.cpp", to=tmp_path / "written")
    assert "needs the base: the config of" in str(unwritten.value)
    assert "pass base=BASE, a folder or a registered base" in str(unwritten.value)
    assert "--" not in str(unwritten.value)


def test_an_unknown_name_gets_a_suggestion_from_the_registry(tmp_path: Path) -> None:
    where = str(tmp_path / "registry")
    adaptry.push(where, tiny_lora(tmp_path / "out"), "acme/tone", alias="prod")

    with adaptry.connect(where) as registry:
        with pytest.raises(adaptry.errors.NotFound, match=r"did you mean acme/tone@prod\?"):
            adaptry.pull(registry, "acme/tone@prd", tmp_path / "there")
        with pytest.raises(adaptry.errors.NotFound, match=r"did you mean acme/tone\?"):
            adaptry.check("acme/tnoe", registry=registry)
    with pytest.raises(adaptry.errors.NotFound, match=r"did you mean acme/tone\?"):
        adaptry.combine({"acme/tnoe": 1.0, "acme/tone": 0.5}, to=tmp_path / "both", registry=where)
    with pytest.raises(adaptry.errors.NotFound, match=r"no adapter nobody/knows$"):
        adaptry.pull(where, "nobody/knows", tmp_path / "there")
