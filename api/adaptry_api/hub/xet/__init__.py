"""What the Hub's clients send when they upload large files: chunks packed into xorbs, and shards that say how
files are put together from them (Xet, https://huggingface.co/docs/xet). Decoding only: it knows no registry
and no network.
"""
