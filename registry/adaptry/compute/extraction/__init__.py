"""Extracts a LoRA from a full fine-tune and its base: the change by training, as closely as a rank allows.

`diff_scan` finds the differences (in headers, then in bytes up to the first difference), `target_choice`
determines how an adapter can represent them, `plan` makes the plan, `extracted_adapter` computes tensor by
tensor, and `verify_roundtrip` merges the result back and compares.
"""
