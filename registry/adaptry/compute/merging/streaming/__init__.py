"""Merged checkpoints that are not stored: their files are computed while they are read.

`virtual_checkpoint` is such a checkpoint. It uses the plan and kernels of a merge to disk, so its bytes are
the same. `assembly` opens one from its inputs. `server` is the separate process that computes for a registry
server, which must not compute itself (`sidecar_client`). `hashes` caches the digests of files, and
`open_models` keeps models open.
"""
