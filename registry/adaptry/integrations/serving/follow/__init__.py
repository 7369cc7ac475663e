"""The controller beside an engine: desired state, plan, execution, report."""
