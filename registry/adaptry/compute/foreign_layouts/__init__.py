"""Converts other tools' LoRAs to PEFT's layout: renames and transposes tensors, and writes scales in PEFT's
terms.

`open_as_peft` returns a view of the file, which a merge reads as if PEFT had written it. `convert_to_peft`
returns a lazy adapter, which is written to a folder. A layout is one file here and one entry in `LAYOUTS`.
"""
