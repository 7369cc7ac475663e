"""Proves or refutes, tensor by tensor and in bounded memory, that a checkpoint is a base plus adapters.

The plan and kernels of a merge compute what each tensor must be; `verification` compares instead of writing.
Tensors that differ are examined again (`second_pass`, `diagnosis`), to find out how: by a wrong scale, or
because nothing was applied.
"""
