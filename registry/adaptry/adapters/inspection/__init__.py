"""Inspects weights files in a limited process: counts non-finite values and computes the norm of every
tensor.

`Inspector` starts the process and gives it bytes through a pipe. The process knows no registry, has no
credentials, and uses numpy if it is installed, never torch. Its result is a value (`WeightsInspection`), from
which `checks.weights` derives findings.
"""
