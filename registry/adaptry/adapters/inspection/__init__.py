"""Inspects weights files in a bounded process: counts non-finite values and computes a norm for every tensor.

`Inspector` starts the process and gives it bytes through a pipe; the process knows no registry, has no
credentials and uses numpy where it is installed, never torch. Its answer is a value (`WeightsInspection`);
what follows from it is for `checks.weights` to decide.
"""
