"""The run and step of an adapter by its path, and the names of runs."""

from __future__ import annotations

import pytest

from adaptry.core.refs import AdapterName
from adaptry.operations.training_runs import RunPosition, locate_in_run, name_adapters, valid_name


@pytest.mark.parametrize(
    ("path", "run", "steps"),
    [
        ("", "", ()),
        ("tone", "tone", ()),
        ("tone/checkpoint-500", "tone", (500,)),
        ("tone/final", "tone", ()),
        ("tone/final_checkpoint", "tone", ()),
        ("2026/tone/epoch_3/step_20", "2026/tone", (3, 20)),
        ("checkpoint-500", "", (500,)),
        ("tone/checkpoint-500/french", "tone/french", (500,)),  # an adapter that has a name in PEFT
        ("tone/best", "tone/best", ()),
        ("hub/models--org--tone/snapshots/0f3a", "hub/org/tone", ()),
        ("snapshots/0f3a", "snapshots/0f3a", ()),
    ],
)
def test_a_path_shows_run_and_step(path: str, run: str, steps: tuple[int, ...]) -> None:
    parts = path.split("/") if path else []
    assert locate_in_run(parts) == RunPosition(tuple(run.split("/")) if run else (), steps)


def test_files_under_a_name_that_the_user_chose_are_runs_with_epochs() -> None:
    assert locate_in_run(["sd"], "style-000004.safetensors") == RunPosition(("sd", "style"), (4,))
    assert locate_in_run(["sd"], "style-step00000500.safetensors") == RunPosition(("sd", "style"), (500,))
    assert locate_in_run([], "style.safetensors") == RunPosition(("style",))


def test_names_are_paths_made_valid_and_do_not_depend_on_other_runs() -> None:
    runs = [("2026", "tone"), ("tone",), (), ("a b",)]

    names = name_adapters(runs, "acme", "runs")

    assert [str(names[run]) for run in runs] == ["acme/2026-tone", "acme/tone", "acme/runs", "acme/a-b"]
    assert {run: name_adapters([run], "acme", "runs")[run] for run in runs} == names


def test_runs_whose_names_become_equal_are_distinguished_by_a_digest() -> None:
    names = name_adapters([("a b",), ("a", "b")], "acme", "runs")

    assert len(set(names.values())) == 2
    assert all(name.name.startswith("a-b-") for name in names.values())


def test_a_run_in_the_searched_folder_is_distinguished_from_one_below_it_with_that_folders_name() -> None:
    names = name_adapters([(), ("tone",)], "acme", "tone")

    assert len(set(names.values())) == 2


@pytest.mark.parametrize(
    "text",
    [
        "ä ö",
        "日本語",
        "--x..y--",
        "x" * 300,
        "con",
        "model.merged",
        "a.git",
        ".hidden",
        "_",
        "a/b",
        "nul.txt",
        "com1." + "x" * 300,
        "_" * 300,
        "x" * 90 + ".git",
        "-",
        "x\n",
    ],
)
def test_every_text_becomes_a_valid_name(text: str) -> None:
    assert AdapterName.parse(f"acme/{valid_name(text)}").name == valid_name(text)
