"""Tests whether a running engine serves an adapter as it was trained, judging by the engine's answers.

Fixed prompts go to the engine with and without the adapter, and to PEFT on the CPU; `comparison` compares
their probabilities of the next token. `client` queries the engines, `reference` uses PEFT, and neither needs
a registry.
"""
