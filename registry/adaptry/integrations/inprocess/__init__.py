"""Adapters in a program's memory: `adaptry.load` gives tensors, or puts an adapter into a PEFT model.

The files are verified, are those of the ref's current version, and must fit the model; otherwise an error is
raised and the model is unchanged. torch and PEFT are imported only when something is loaded.
"""

from adaptry.integrations.inprocess.load_result import LoadResult
from adaptry.integrations.inprocess.loader import load

__all__ = ["LoadResult", "load"]
