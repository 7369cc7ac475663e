"""The Hub protocol: unmodified clients of the Hugging Face Hub read from this registry and write to it.

It stands at the root of the host, since the clients put `/api/models/…` and `/{namespace}/{name}/resolve/…`
behind `HF_ENDPOINT`. Everything here translates between that protocol and a `Registry`; what may be stored
and who may see it is decided there.
"""
