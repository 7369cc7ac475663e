"""What implementers test with: contract suites to subclass, and small real adapters and bases.

Nothing here is imported by the product. `samples` needs nothing but the core; the suites need pytest.
"""
