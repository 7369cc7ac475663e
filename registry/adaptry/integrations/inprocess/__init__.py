"""Adapters in a program's memory: `adaptry.load` gives tensors, or puts an adapter into a PEFT model.

What comes is verified, of the version that the ref means now, and fits what it is put into; else it is an
error and the model is as it was. torch and PEFT are imported when something is loaded, not before.
"""

from adaptry.integrations.inprocess.load_result import LoadResult
from adaptry.integrations.inprocess.loader import load

__all__ = ["LoadResult", "load"]
