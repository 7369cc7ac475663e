"""Whether a running engine answers as an adapter was trained to, by its answers, not its claims.

Fixed prompts go to the engine with and without the adapter, and to PEFT on the CPU; `comparison`
compares what each holds for likely as the next token. `client` knows the engines, `reference` knows PEFT, and
neither knows a registry.
"""
