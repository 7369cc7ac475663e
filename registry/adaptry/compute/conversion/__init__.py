"""Converts adapters of any method to a plain LoRA, and LoRAs to another rank.

Methods that are exactly a LoRA stay exact. For others the closest LoRA is computed, and each module has a
figure for its error.
"""
