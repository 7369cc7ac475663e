"""The server's side of the process that computes merged models for it.

`client` starts the process and passes its answers on, `frames` defines the messages, `inputs` the values in
them. Nothing here computes anything, or imports modules that compute.
"""
