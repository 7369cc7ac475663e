"""Proves or refutes, tensor by tensor and in bounded memory, that a checkpoint is a base plus adapters.

The plan and kernels of a merge compute the expected values of each tensor; `verification` compares instead of
writing. Tensors that differ are examined again (`second_pass`, `diagnosis`), to find the cause, such as a
wrong scale, or an adapter that was not applied.
"""
