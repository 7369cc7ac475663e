"""`bind`: the one reading of what an adapter is on a base, which everything that follows shares."""

from adaptry.checks.binding.bind import bind
from adaptry.checks.binding.bound_adapter import BoundAdapter, Dropped
from adaptry.checks.binding.whole import require_whole

__all__ = ["BoundAdapter", "Dropped", "bind", "require_whole"]
