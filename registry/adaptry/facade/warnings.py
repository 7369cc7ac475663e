"""Messages that a caller should see but need not act on: they are logged as warnings of the logger
`adaptry`.
"""

from __future__ import annotations

import logging

_LOG = logging.getLogger("adaptry")


def warn(sentence: str) -> None:
    """Logs `sentence`; without a logging setup, Python shows it on stderr."""
    _LOG.warning("%s", sentence)
