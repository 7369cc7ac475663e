"""A LoRA out of a full fine-tune and its base: what training changed, as near as a rank allows.

`survey` finds what differs (headers, then bytes up to the first difference), `holding` says what an adapter can hold of
it, `planning` decides, `extraction` computes tensor by tensor, and `rejoining` merges the result back and compares.
"""
