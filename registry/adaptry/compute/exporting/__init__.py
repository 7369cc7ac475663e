"""Exports adapters for engines: makes the repairs that a verdict requires, and writes each tool's files.

The verdict alone determines the plan of repairs. Every repair is a lazy adapter over a view. The error of the
result is measured on the written numbers, and the result's verdict must be *served as trained*.
"""
