"""The Hub protocol: unmodified clients of the Hugging Face Hub read from this registry and write to it.

Its routes are at the root of the host, since the clients append `/api/models/…` and
`/{namespace}/{name}/resolve/…` to `HF_ENDPOINT`. This package translates between that protocol and a
`Registry`, which decides what may be stored and who may see it.
"""
