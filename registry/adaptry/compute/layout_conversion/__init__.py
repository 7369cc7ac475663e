"""Converts an adapter's file from one version's layout to another, where PEFT and transformers changed it.

The update is unchanged: names change, and the factors of a layer's experts are concatenated or separated.
"""
