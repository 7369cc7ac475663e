"""`adaptry lineage --recipe`: the recipe that makes a version again."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from adaptry import connect, open_dir
from adaptry.core.errors import NotFound
from adaptry.core.identity import Identity
from adaptry.core.refs import Ref
from adaptry.operations.recipe_replay import replayable_recipe
from adaptry.operations.transfer import push
from adaptry.storage.connect import open_local
from adaptry.testing.samples import tiny_lora

pytestmark = pytest.mark.usefixtures("out", "better")

RECIPES: list[dict[str, Any]] = [
    {"inputs": ["acme/tone=0.7", "acme/facts=-0.3"]},
    {"inputs": ["acme/tone", "acme/facts@1=0.5"], "method": "ties", "parameters": {"density": 0.3}},
    {"inputs": ["acme/tone", "acme/facts"], "method": "dare_linear", "seed": 7, "rank": 3, "dtype": "BF16"},
    {"inputs": ["acme/tone", "acme/facts"], "method": "svd", "energy": 0.9, "uniform": True},
    {"inputs": ["acme/tone", "acme/facts"], "in_sequence": True},
    {
        "inputs": ["acme/tone", "acme/facts"],
        "modules": [
            {"match": "q_proj", "weights": {"acme/facts": 2.0, "acme/tone": 0.25}, "rank": 2},
            {"match": "v_proj", "method": "ties", "parameters": {"density": 0.5}},
        ],
    },
]


@pytest.fixture
def parents(run, out, better) -> None:
    run("push", "./out", "acme/tone")
    run("push", "./better", "acme/facts")


@pytest.mark.usefixtures("parents")
@pytest.mark.parametrize("recipe", RECIPES)
def test_the_printed_recipe_makes_the_same_version(
    run, answer, tmp_path: Path, recipe: dict[str, Any]
) -> None:
    pytest.importorskip("torch")
    Path("first.yaml").write_text(yaml.safe_dump(recipe))
    run("combine", "--recipe", "first.yaml", "-o", "acme/both")
    later = tiny_lora(tmp_path / "later", seed=9)
    run("push", str(later), "acme/tone")  # the name now selects another version

    Path("again.yaml").write_text(run("lineage", "acme/both", "--recipe").stdout)
    run("combine", "--recipe", "again.yaml", "-o", "acme/again")

    first, again = (answer("show", name)["version"]["digest"] for name in ("acme/both", "acme/again"))
    assert first == again
    assert answer("lineage", "acme/both", "--recipe") == yaml.safe_load(Path("again.yaml").read_text())


@pytest.mark.usefixtures("parents")
def test_the_input_whose_saved_modules_were_kept_is_named(run, answer) -> None:
    pytest.importorskip("torch")
    run("combine", "acme/tone", "acme/facts", "--whole-weights", "none", "-o", "acme/both")
    assert answer("lineage", "acme/both", "--recipe")["whole_weights"] == "none"


@pytest.mark.usefixtures("parents")
def test_versions_that_no_recipe_file_can_make_state_the_reason(run) -> None:
    pytest.importorskip("torch")
    assert "not derived from another adapter" in run("lineage", "acme/tone", "--recipe", code=2).stderr
    run("resize", "acme/tone", "--rank", "2", "-o", "acme/small")
    assert "resize: rank 2" in run("lineage", "acme/small", "--recipe", code=2).stderr
    run("combine", "acme/tone", "./better", "-o", "acme/mixed")
    assert "push the folder" in run("lineage", "acme/mixed", "--recipe", code=2).stderr
    assert "not both" in run("lineage", "acme/mixed", "--recipe", "--descendants", code=2).stderr


@pytest.mark.parametrize("inputs", [[{"revision": "?", "weight": 1}], [{"weight": 1}], [7], None])
def test_a_recipe_of_another_tool_is_refused(run, inputs: object) -> None:
    push(connect(), open_dir("out"), "acme/tone", recipe={"operation": "combine", "inputs": inputs})
    refused = run("lineage", "acme/tone", "--recipe", code=2)
    assert "not written by `adaptry combine`" in refused.stderr


@pytest.mark.parametrize("modules", [7, [7], ["q_proj"], {"match": "q_proj"}, [{"weights": [7]}]])
def test_modules_of_another_tool_are_refused(run, modules: object) -> None:
    recipe = {"operation": "combine", "inputs": [], "modules": modules}
    push(connect(), open_dir("out"), "acme/tone", recipe=recipe)
    refused = run("lineage", "acme/tone", "--recipe", code=2)
    assert "not written by `adaptry combine`" in refused.stderr


@pytest.mark.usefixtures("parents")
def test_a_recipe_names_no_input_that_the_caller_may_not_read(run, home: Path) -> None:
    pytest.importorskip("torch")
    run("combine", "acme/tone", "acme/facts", "-o", "zoo/both")
    theirs = open_local(home, Identity.with_role("zoe", "reader", ("zoo",)))
    with closing(theirs), pytest.raises(NotFound, match="may not read it"):
        replayable_recipe(theirs, Ref.parse("zoo/both"))
