"""Whether a checkpoint is a base plus adapters: proved or refuted, tensor by tensor, in bounded memory.

The same plan and kernels that merge say what each tensor must be; `verification` compares instead of writing.
What differs is looked at once more (`second_pass`, `diagnosis`), to say how: which scale it has, or that
nothing was applied at all.
"""
