"""LoRAs of other tools in PEFT's layout: tensors renamed and turned round, scales said in PEFT's words.

`open_as_peft` gives a view of the foreign file, which merging reads as if PEFT had written it;
`bring_to_peft` the same as a lazy adapter, which a folder is written of. A layout is one file here and one
entry in `LAYOUTS`.
"""
