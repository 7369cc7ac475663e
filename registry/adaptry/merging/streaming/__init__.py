"""Merged checkpoints that are stored nowhere: the files of a merge, computed while they are read.

`virtual` is such a checkpoint, over the plan and the kernels that write one to disk, so it has the same bytes.
"""
