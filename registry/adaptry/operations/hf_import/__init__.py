"""Imports adapters and bases from Hugging Face's Hub, or a compatible one, into a registry.

`hub_names` parses references (`hf:org/name@revision`); `hub_client` queries the hub through `huggingface_hub`; `file_reader`
reads ranges of a file. `adapters`, `bulk_import` and `bases` import. `huggingface_hub` takes the hub's address and the token
from the environment: HF_ENDPOINT, HF_TOKEN.
"""
