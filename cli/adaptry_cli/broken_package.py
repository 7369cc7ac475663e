"""Recognises errors of other packages that are installed but cannot be imported."""

from __future__ import annotations

import traceback

_OURS = ("adaptry", "adaptry_cli", "adaptry_api")


def broken_package(error: Exception) -> str | None:
    """The package of another project whose import raised `error`, such as a torch whose libraries are
    missing; None if something else raised it.
    """
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    packages = [str(frame.f_globals.get("__name__", "")).partition(".")[0] for frame in frames]
    ours = max((at for at, package in enumerate(packages) if package in _OURS), default=-1)
    after = [at for at in range(ours + 1, len(frames)) if packages[at] != "importlib"]
    if not after or frames[after[0]].f_code.co_name != "<module>":  # code that runs when it is imported
        return None
    return packages[after[0]]
