"""Adapters of any method written as a plain LoRA, and LoRAs brought to another rank.

What is exactly a LoRA stays exact; for the rest the nearest one is computed, and every module says how near
it is.
"""
