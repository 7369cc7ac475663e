"""The small faults that can be introduced into a source file, each a change of one expression or statement.

Code that no test needs to check is excluded: texts, annotations, and code for type checkers only.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

COMPARED = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
CALCULATED = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.FloorDiv: ast.Mult, ast.Mod: ast.Add}


@dataclass(frozen=True, slots=True)
class Change:
    """`before`, between two offsets of a file's bytes, becomes `after`."""

    kind: str
    line: int
    start: int
    end: int
    before: str
    after: str

    def apply(self, source: bytes) -> bytes:
        return source[: self.start] + self.after.encode() + source[self.end :]


def changes(source: bytes) -> Iterator[Change]:
    """All of a file, in the order of its lines."""
    tree = ast.parse(source)
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    for node in _executed(tree):
        for kind, old, new in _faults(node):
            start = starts[old.lineno - 1] + old.col_offset
            end = starts[(old.end_lineno or 0) - 1] + (old.end_col_offset or 0)
            text = new if isinstance(new, str) else ast.unparse(new)
            if isinstance(old, ast.expr):
                text = f"({text})"
            yield Change(kind, old.lineno, start, end, source[start:end].decode(), text)


def _executed(node: ast.AST) -> Iterator[ast.AST]:
    """What a program may run; no f-strings, in which Python 3.11 reports wrong offsets."""
    if isinstance(node, ast.JoinedStr) or _is_for_type_checkers(node):
        return
    yield node
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "type_params"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _executed(child)


def _is_for_type_checkers(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def _faults(node: ast.AST) -> Iterator[tuple[str, ast.expr | ast.stmt, ast.AST | str]]:
    match node:
        case ast.Compare(left, [operator, *others], comparators) if type(operator) in COMPARED:
            yield "comparison", node, ast.Compare(left, [COMPARED[type(operator)](), *others], comparators)
        case ast.BinOp(left, operator, right) if type(operator) in CALCULATED:
            yield "arithmetic", node, ast.BinOp(left, CALCULATED[type(operator)](), right)
        case ast.BoolOp(operator, values):
            other = ast.And() if isinstance(operator, ast.Or) else ast.Or()
            yield "condition", node, ast.BoolOp(other, values)
        case ast.UnaryOp(ast.Not(), operand):
            yield "negation", node, operand
        case ast.Constant(bool() as value):
            yield "constant", node, ast.Constant(not value)
        case ast.Constant(int() | float() as value):
            yield "constant", node, ast.Constant(value + 1)
        case ast.If(test) | ast.IfExp(test) | ast.While(test):
            yield "negation", test, ast.UnaryOp(ast.Not(), test)
        case ast.Return(ast.expr() as value) if not (isinstance(value, ast.Constant) and value.value is None):
            yield "returned None", value, ast.Constant(None)
        case ast.Call(function, [first, second, *more], keywords) if not (
            isinstance(first, ast.Starred) or isinstance(second, ast.Starred)
        ):
            yield "swapped arguments", node, ast.Call(function, [second, first, *more], keywords)
        case ast.Expr(ast.Call() | ast.Yield()) | ast.AugAssign() | ast.Raise():
            yield "removed statement", node, "pass"
        case ast.Continue() | ast.Break():
            yield "removed statement", node, "pass"
        case ast.Assign([ast.Attribute() | ast.Subscript()], _):
            yield "removed statement", node, "pass"
