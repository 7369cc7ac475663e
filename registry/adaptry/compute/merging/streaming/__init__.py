"""Merged checkpoints that are not stored: their files are computed while they are read.

`virtual_checkpoint` is such a checkpoint, over the plan and the kernels that write one to disk, so it has the
same bytes; `assembly` opens one from its inputs. `server` is the program that computes them for a server,
which must not compute itself (`sidecar_client`). `hashes` remembers what a file's bytes came to,
`open_models` the models that are open.
"""
