"""The controller next to an engine: desired state, plan, execution, report."""
