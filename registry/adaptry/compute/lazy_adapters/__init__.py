"""Adapters derived from adapters: operations take views and return lazy adapters, which a sink writes.

An operation (stack, combine, convert, resize, …) takes parents and returns a `LazyAdapter`, without reading
weights. `write_adapter` computes its modules one after another into a folder;
`adaptry.operations.derive.derive` pushes it as a version.
"""
