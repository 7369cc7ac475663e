"""Sentences that a caller should know and need not act on: they go to the log `adaptry`, as warnings."""

from __future__ import annotations

import logging

_LOG = logging.getLogger("adaptry")


def warn(sentence: str) -> None:
    """Logs `sentence`; without a logging setup, Python shows it on stderr."""
    _LOG.warning("%s", sentence)
