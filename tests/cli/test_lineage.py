"""`adaptry lineage`: the tree of ancestors or descendants of a version."""

from __future__ import annotations

from pathlib import Path

import pytest

from adaptry import connect, open_dir
from adaptry.core.digest import Digest
from adaptry.core.identity import Identity
from adaptry.core.refs import Ref
from adaptry.operations.lineage import LineageNode, ancestor_tree, descendant_tree
from adaptry.operations.transfer import push
from adaptry.storage.connect import open_local
from adaptry.testing.samples import tiny_lora

pytestmark = pytest.mark.usefixtures("out", "better")


@pytest.fixture
def family(tmp_path: Path) -> None:
    """Makes acme/both from acme/tone and acme/facts, and acme/all from acme/both and acme/tone."""
    registry = connect()

    def pushed(name: str, seed: int, *parents: str, **recipe: object) -> None:
        digests = tuple(registry.versions.get(Ref.parse(parent)).digest for parent in parents)
        folder = tiny_lora(tmp_path / f"made-{seed}", seed=seed)
        push(registry, open_dir(folder), name, parents=digests, recipe=recipe or None)

    pushed("acme/tone", 11)
    pushed("acme/facts", 12)
    inputs = [{"revision": "…", "weight": 0.5}, {"revision": "…", "weight": 2}]
    pushed(
        "acme/both", 13, "acme/tone", "acme/facts", operation="combine", method="svd", inputs=inputs, rank=4
    )
    pushed("acme/all", 14, "acme/both", "acme/tone", operation="stack")


def names(tree: LineageNode) -> object:
    """A tree as nested lists of names."""
    named = " = ".join(tree.refs)
    return [named, *map(names, tree.relatives)] if tree.relatives else named


@pytest.mark.usefixtures("family")
def test_lineage_shows_all_ancestors_of_a_version(run) -> None:
    assert run("lineage", "acme/all").stdout.splitlines() == [
        "acme/all@1  stack",
        "├─ acme/both@1  combine svd: 0.5 + 2, rank 4",
        "│  ├─ acme/tone@1",
        "│  └─ acme/facts@1",
        "└─ acme/tone@1",
    ]


@pytest.mark.usefixtures("family")
def test_show_names_the_parents_and_has_the_recipe_in_one_line(run, answer) -> None:
    shown = run("show", "acme/both").stdout.splitlines()

    assert "recipe       combine svd: 0.5 + 2, rank 4" in shown
    parents = next(number for number, line in enumerate(shown) if line.startswith("parents"))
    assert [line.split()[-1] for line in shown[parents : parents + 2]] == ["acme/tone@1", "acme/facts@1"]
    assert answer("show", "acme/both")["manifest"]["recipe"]["rank"] == 4


@pytest.mark.usefixtures("family")
def test_lineage_shows_the_descendants_of_a_version(run, answer) -> None:
    assert run("lineage", "acme/tone", "--descendants").stdout.splitlines() == [
        "acme/tone@1",
        "├─ acme/both@1  combine svd: 0.5 + 2, rank 4",
        "│  └─ acme/all@1  stack",
        "└─ acme/all@1  stack",
    ]
    assert answer("lineage", "acme/all", "--descendants")["relatives"] == []
    assert "no version was derived from it" in run("lineage", "acme/all", "--descendants").stderr
    assert "not derived from another adapter" in run("lineage", "acme/tone").stderr


@pytest.mark.usefixtures("family")
def test_a_revision_with_two_names_is_shown_once_under_both(run, answer) -> None:
    run("copy", "acme/facts", "zoo/facts")

    (_, facts) = answer("lineage", "acme/both")["relatives"]

    assert facts["refs"] == ["acme/facts@1", "zoo/facts@1"]


def test_a_repeated_ancestor_is_not_expanded_again(run, tmp_path: Path) -> None:
    registry = connect()
    one = push(registry, open_dir(tiny_lora(tmp_path / "one", seed=21)), "acme/line").version.digest
    two = push(registry, open_dir(tiny_lora(tmp_path / "two", seed=22)), "acme/line", parents=(one,))
    push(
        registry, open_dir(tiny_lora(tmp_path / "three", seed=23)), "acme/line", parents=(two.version.digest,)
    )
    three = registry.versions.get(Ref.parse("acme/line@3")).digest
    made = push(
        registry,
        open_dir(tiny_lora(tmp_path / "four", seed=24)),
        "acme/line",
        parents=(three, two.version.digest),
    )

    tree = ancestor_tree(registry, f"acme/line@{made.version.number}")

    assert names(tree) == ["acme/line@4", ["acme/line@3", ["acme/line@2", "acme/line@1"]], "acme/line@2"]
    assert tree.relatives[1].is_repeated
    assert "acme/line@2  (as above)" in run("lineage", "acme/line@4").stdout


@pytest.mark.usefixtures("family")
def test_a_hidden_parent_is_shown_only_by_its_digest(home: Path, tmp_path: Path) -> None:
    mine = connect()
    both = mine.versions.get(Ref.parse("acme/both"))
    push(mine, open_dir(tiny_lora(tmp_path / "shared", seed=15)), "zoo/shared", parents=(both.digest,))
    theirs = open_local(home, Identity.with_role("zoe", "reader", ("zoo",)))

    tree = ancestor_tree(theirs, "zoo/shared")

    assert tree.refs == ("zoo/shared@1",)
    assert tree.relatives == (LineageNode(digest=both.digest),)
    assert descendant_tree(theirs, "zoo/shared").relatives == ()
    theirs.close()


def test_parents_from_other_registries_and_folders_are_labelled(run, tmp_path: Path) -> None:
    registry = connect()
    gone = Digest.of(b"a revision of another registry")
    weights = Digest.of(b"a folder's weights")
    recipe = {"operation": "combine", "inputs": [{"weights": str(weights), "weight": 1.0}]}
    push(registry, open_dir("out"), "acme/tone", parents=(gone,), recipe=recipe)

    assert run("lineage", "acme/tone").stdout.splitlines() == [
        "acme/tone@1  combine: 1",
        f"├─ {gone.brief}  not in this registry",
        f"└─ a folder, weights {weights.brief}",
    ]


@pytest.mark.usefixtures("family")
def test_a_truncated_tree_is_marked() -> None:
    tree = ancestor_tree(connect(), "acme/all", maximum=2)

    assert names(tree) == ["acme/all@1", "acme/both@1"]
    assert tree.is_truncated and tree.relatives[0].is_truncated


@pytest.mark.usefixtures("family")
def test_the_history_shows_how_a_version_was_derived(run) -> None:
    pushed = next(
        line for line in run("history", "acme/both").stdout.splitlines() if "version.pushed" in line
    )

    assert "made combine svd: 0.5 + 2, rank 4" in pushed
    assert pushed.count("sha256:") == 3


def test_the_energy_kept_by_an_approximation_is_shown_and_searchable(run, answer) -> None:
    pytest.importorskip("torch")
    run("push", "./out", "acme/tone")
    made = answer("combine", "acme/tone", "./better", "--rank", "2", "-o", "acme/small")

    tree = answer("lineage", "acme/small")

    assert tree["kept_energy"] == made["kept_energy"] < 1
    assert [version["name"] for version in answer("search", "metric.kept_energy<1")] == ["acme/small"]


@pytest.mark.usefixtures("out")
def test_the_lineage_of_identical_versions_begins_with_the_requested_one(run) -> None:
    run("push", "./out", "acme/tone")
    run("push", "./out", "zoo/tone")

    assert run("lineage", "zoo/tone").stdout.strip() == "zoo/tone@1 (identical to acme/tone@1)"
