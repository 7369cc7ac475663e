"""Adapters brought from one layout of their file into another, where PEFT and transformers changed it.

The update stays what it is: names change, and the factors of a layer's experts are put side by side or taken
apart.
"""
