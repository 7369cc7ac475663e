"""Adapters made from adapters: views in, lazy adapters out, and two sinks (a folder, a registry).

An operation (stack, combine, convert, resize, …) takes parents and gives a `LazyAdapter`; it reads no weight.
`write_adapter` computes its modules one after the other into a folder; `adaptry.operations.derive.derive`
makes a version of it.
"""
