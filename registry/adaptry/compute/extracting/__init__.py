"""A LoRA out of a full fine-tune and its base: what training changed, as near as a rank allows.

`diff_scan` finds what differs (headers, then bytes up to the first difference), `target_choice` says what an
adapter can hold of it, `plan` decides, `extraction` computes tensor by tensor, and `verify_roundtrip` merges
the result back and compares.
"""
