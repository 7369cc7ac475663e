"""The drawing of a lineage: the positions of boxes and lines, for trees of several shapes."""

from __future__ import annotations

import re

from tests.pages.browser import Browser

from adaptry.core.digest import Digest
from adaptry.operations.lineage import LineageNode
from adaptry_api.pages.lineage_graph import NODE_HEIGHT, NODE_WIDTH, LineageGraph, lineage_graph
from adaptry_api.testing import Server


def node(ref: str, *relatives: LineageNode, **more: object) -> LineageNode:
    refs = (ref,) if "@" in ref else ()
    return LineageNode(digest=Digest.of(ref.encode()), refs=refs, relatives=relatives).model_copy(update=more)


def boxes(graph: LineageGraph) -> dict[str, tuple[float, float]]:
    return {one.label: (one.x, one.y) for one in graph.nodes}


def ends(graph: LineageGraph) -> list[tuple[float, ...]]:
    """The ends of each line."""
    numbers = [[float(text) for text in re.findall(r"[\d.]+", edge.path)] for edge in graph.edges]
    return [(found[0], found[1], found[-2], found[-1]) for found in numbers]


def assert_drawn_well(graph: LineageGraph) -> None:
    """No two boxes overlap, all are inside, and each line goes from a box's right side to one's left side."""
    places = [(one.x, one.y) for one in graph.nodes]
    for place, (x, y) in enumerate(places):
        assert 0 <= x <= graph.width - NODE_WIDTH
        assert 0 <= y <= graph.height - NODE_HEIGHT
        for other_x, other_y in places[place + 1 :]:
            assert abs(x - other_x) >= NODE_WIDTH or abs(y - other_y) >= NODE_HEIGHT
    for from_x, from_y, to_x, to_y in ends(graph):
        assert any((x + NODE_WIDTH, y + NODE_HEIGHT / 2) == (from_x, from_y) for x, y in places)
        assert any((x, y + NODE_HEIGHT / 2) == (to_x, to_y) for x, y in places)


def test_ancestors_are_to_the_left_and_descendants_to_the_right_of_one_root() -> None:
    up = node("a/b@3", node("a/b@1"), node("a/b@2", node("a/base@1")))
    down = node("a/b@3", node("a/c@1"), node("a/c@2", node("a/d@1"), node("a/d@2"), node("a/d@3")))
    graph = lineage_graph(up, down)
    assert_drawn_well(graph)
    found = boxes(graph)
    assert len(graph.nodes) == 9
    assert found["a/base@1"][0] < found["a/b@2"][0] == found["a/b@1"][0] < found["a/b@3"][0]
    assert found["a/b@3"][0] < found["a/c@1"][0] == found["a/c@2"][0] < found["a/d@3"][0]
    assert len(graph.edges) == 3 + 5


def test_a_wide_side_leaves_the_other_at_the_height_of_the_root() -> None:
    leaves = [node(f"a/many@{number}") for number in range(1, 30)]
    for graph in (
        lineage_graph(node("a/b@1", *leaves), node("a/b@1", node("a/c@1"))),
        lineage_graph(node("a/b@1", node("a/c@1")), node("a/b@1", *leaves)),
    ):
        assert_drawn_well(graph)
        found = boxes(graph)
        assert found["a/b@1"][1] == found["a/c@1"][1]
        assert len(graph.nodes) == 31


def test_folders_hidden_revisions_and_a_cut_tree_are_boxes_without_a_link() -> None:
    outside = (Digest.of(b"folder"),)
    graph = lineage_graph(
        node("a/b@1", node("hidden"), unregistered_inputs=outside, is_truncated=True), node("a/b@1")
    )
    assert_drawn_well(graph)
    kinds = {one.kind: one.href for one in graph.nodes}
    assert kinds == {"root": None, "unknown": None, "folder": None, "more": None}


def test_a_long_name_is_cut_at_its_beginning_and_whole_in_the_title() -> None:
    ref = f"organisation/{'x' * 60}@12"
    graph = lineage_graph(node("a/b@1", node(ref)), node("a/b@1"))
    box = next(one for one in graph.nodes if one.kind == "version")
    assert box.label.endswith("@12")
    assert len(box.label) <= 26
    assert ref in box.title


def test_the_page_draws_the_versions_that_one_was_made_from_as_links(team: Server) -> None:
    text = Browser(team).get("/-/adapters/acme/support-sql/1/lineage").body.decode()
    part = text[text.index("<h1>Lineage</h1>") :]
    drawing = part[part.index("<svg") : part.index("</svg>")]
    assert 'href="/acme/support-tone?version=4"' in drawing
    assert 'href="/acme/sql-writer?version=2"' in drawing
