"""Adapters and bases that are on a hub of Hugging Face's kind, taken over into a registry.

`naming` is how they are called here (`hf:org/name@revision`); `hub` asks the hub what there is, through `huggingface_hub`;
`remote` reads a file's bytes, by ranges; `adapters`, `importing` and `bases` are the verbs. Which hub and as whom is what
`huggingface_hub` takes from the environment: HF_ENDPOINT, HF_TOKEN.
"""
