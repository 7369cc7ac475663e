"""Merged checkpoints that are stored nowhere: the files of a merge, computed while they are read.

`virtual` is such a checkpoint, over the plan and the kernels that write one to disk, so it has the same bytes; `assembling`
opens one from its ingredients. `process` is the program that computes them for a server, which must not (`computing`).
`hashes` remembers what a file's bytes came to, `finished` the files themselves, if asked to.
"""
