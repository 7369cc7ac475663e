"""The lineage of a version as a drawing: its ancestors to its left, its descendants to its right.

Both are trees, so each revision gets a column by its distance and the middle of its relatives' rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field, replace
from typing import Literal

from adaptry.core.lazy_dataclass import dataclass
from adaptry.operations.lineage import LineageNode
from adaptry_api.pages.text import adapter_url, short_digest

NODE_WIDTH, NODE_HEIGHT = 200, 44
_COLUMN, _ROW, _MARGIN = NODE_WIDTH + 44, NODE_HEIGHT + 14, 4
_LABEL, _DETAIL = 26, 32
"""Maximum number of characters in each of a box's two lines."""

Kind = Literal["root", "version", "unknown", "folder", "more"]


@dataclass(frozen=True, slots=True)
class GraphNode:
    """A box: its upper left corner, its two lines, the whole text as a tooltip, and a link."""

    x: float
    y: float
    kind: Kind
    label: str
    detail: str = ""
    title: str = ""
    href: str | None = None


@dataclass(frozen=True, slots=True)
class GraphEdge:
    """A line from the right side of one box to the left side of another, as an SVG path."""

    path: str


@dataclass(frozen=True, slots=True)
class LineageGraph:
    width: float
    height: float
    nodes: tuple[GraphNode, ...]
    edges: tuple[GraphEdge, ...]


@dataclass
class _TreeLayout:
    """One tree that is being laid out, with its root in column 0. Rows are counted from above."""

    to_left: bool
    nodes: list[GraphNode] = field(default_factory=list)
    edges: list[tuple[int, float, float]] = field(default_factory=list)
    """The column of the relative, and the rows of both ends: nearer the root first."""
    rows: int = 0
    columns: int = 0

    def place(self, node: LineageNode, column: int) -> float:
        """Places a revision after its relatives, and returns its row."""
        self.columns = max(self.columns, column)
        rows = [self.place(one, column + 1) for one in node.relatives]
        rows += [self._leaf(one, column + 1) for one in _leaves(node)]
        row = sum(rows) / len(rows) if rows else self._next_row()
        self.edges += [(column + 1, row, other) for other in rows]
        self._add(_box(node, is_root=column == 0), column, row)
        return row

    def _leaf(self, box: GraphNode, column: int) -> float:
        self.columns = max(self.columns, column)
        row = self._next_row()
        self._add(box, column, row)
        return row

    def _next_row(self) -> float:
        self.rows += 1
        return self.rows - 1.0

    def _add(self, box: GraphNode, column: int, row: float) -> None:
        self.nodes.append(replace(box, x=-column if self.to_left else column, y=row))


def lineage_graph(ancestors: LineageNode, descendants: LineageNode) -> LineageGraph:
    """The drawing of two trees with the same root."""
    left, right = _TreeLayout(to_left=True), _TreeLayout(to_left=False)
    left_row, right_row = left.place(ancestors, 0), right.place(descendants, 0)
    root_row = max(left_row, right_row)
    nodes: list[GraphNode] = []
    edges: list[GraphEdge] = []
    for side, own_row in ((left, left_row), (right, right_row)):
        lower = root_row - own_row
        boxes = side.nodes if side is left else [one for one in side.nodes if one.kind != "root"]
        nodes += [replace(one, x=_x(left.columns + one.x), y=_y(one.y + lower)) for one in boxes]
        for column, near, far in side.edges:
            ends = (near + lower, far + lower)
            first = left.columns - column if side is left else left.columns + column - 1
            edges.append(_edge(first, *(reversed(ends) if side is left else ends)))
    rows = max(side.rows + root_row - row for side, row in ((left, left_row), (right, right_row)))
    width = _x(left.columns + right.columns) + NODE_WIDTH + _MARGIN
    return LineageGraph(width, _y(rows - 1) + NODE_HEIGHT + _MARGIN, tuple(nodes), tuple(edges))


def _x(column: float) -> float:
    return _MARGIN + column * _COLUMN


def _y(row: float) -> float:
    return round(_MARGIN + row * _ROW, 1)


def _edge(column: int, from_row: float, to_row: float) -> GraphEdge:
    start, end = _x(column) + NODE_WIDTH, _x(column + 1)
    above, below = _y(from_row) + NODE_HEIGHT / 2, _y(to_row) + NODE_HEIGHT / 2
    middle = (start + end) / 2
    return GraphEdge(f"M{start} {above}C{middle} {above} {middle} {below} {end} {below}")


def _leaves(node: LineageNode) -> Iterator[GraphNode]:
    """Relatives that are not revisions: folders, by their weights, and the mark of a truncated tree."""
    for digest in node.unregistered_inputs:
        yield GraphNode(0, 0, "folder", "a folder", f"weights {short_digest(digest)}", f"weights {digest}")
    if node.is_truncated:
        yield GraphNode(0, 0, "more", "and more")


def _box(node: LineageNode, *, is_root: bool) -> GraphNode:
    if not node.refs:
        title = f"{node.digest}: not in this registry, or not visible to you"
        return GraphNode(0, 0, "unknown", short_digest(node.digest), "not in this registry", title)
    ref, *others = node.refs
    name, _, number = ref.partition("@")
    also = f" = {' = '.join(others)}" if others else ""
    detail = (
        "drawn twice"
        if node.is_repeated
        else node.recipe_summary or (f"and {len(others)} more" if others else "")
    )
    return GraphNode(
        0,
        0,
        "root" if is_root else "version",
        ref if len(ref) <= _LABEL else f"…{ref[1 - _LABEL :]}",
        detail if len(detail) <= _DETAIL else f"{detail[: _DETAIL - 1]}…",
        ". ".join(filter(None, (ref + also, node.recipe_summary))),
        None if is_root else f"{adapter_url(name)}?version={number}",
    )
