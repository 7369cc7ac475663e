"""Adapters as an engine wants them: what repairs a verdict asks for, and the files that each tool reads.

A plan of repairs is decided from the verdict alone. Every repair is a lazy adapter over a view; how far the
result is from what was trained is measured on the numbers that are written, and the result's own verdict must
be *served as trained*.
"""
