"""Ids of requests: 16 random hexadecimal digits."""

from __future__ import annotations

import os

_SIZE = 8
_POOL_SIZE = 512 * _SIZE


class RequestIds:
    """Creates ids from a buffer of random bytes. A system call for each id would release the interpreter
    lock, and every request would wait to get it back. For use on the event loop only.
    """

    def __init__(self) -> None:
        self._stock = b""
        self._at = 0

    def next(self) -> str:
        if self._at == len(self._stock):
            self._stock, self._at = os.urandom(_POOL_SIZE), 0
        self._at += _SIZE
        return self._stock[self._at - _SIZE : self._at].hex()
