"""`bind`: determines how PEFT applies an adapter to a base. Checks, merges and exports all use its result."""

from adaptry.checks.binding.bind import bind
from adaptry.checks.binding.bound_adapter import BoundAdapter, DroppedPart
from adaptry.checks.binding.completeness import require_complete
from adaptry.checks.binding.peft_view import as_peft_reads

__all__ = ["BoundAdapter", "DroppedPart", "as_peft_reads", "bind", "require_complete"]
