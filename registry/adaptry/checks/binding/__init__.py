"""`bind`: determines how PEFT applies an adapter to a base. Checks, merges and exports all use its result."""

from adaptry.checks.binding.bind import bind
from adaptry.checks.binding.bound_adapter import BoundAdapter, Dropped
from adaptry.checks.binding.peft_view import as_read_on
from adaptry.checks.binding.whole import require_whole

__all__ = ["BoundAdapter", "Dropped", "as_read_on", "bind", "require_whole"]
