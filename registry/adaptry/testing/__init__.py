"""Test support for implementers: contract suites to subclass, and small, real adapters and bases.

The product imports nothing from here. `samples` needs only the core; the suites need pytest.
"""
