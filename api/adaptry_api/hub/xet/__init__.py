"""The Xet formats in which the Hub's clients upload large files: chunks packed into xorbs, and shards that
describe how files are joined from them (https://huggingface.co/docs/xet). Decoding only, without registry or
network.
"""
