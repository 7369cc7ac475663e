"""Limits how often one network address may do something that needs no token, such as beginning to sign in.

Without this limit, one caller could use up a resource that all callers share. Each process counts separately.
"""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable

DEVICE_SIGN_INS = 200
"""Sign-ins of programs that one address may begin in a minute: in a quarter of an hour, a third of those that
may wait at once. All callers behind a proxy that the server does not trust are one address.
"""
_MAX_ENTRIES = 1 << 14
"""Number of addresses that are counted; beyond it, the oldest is forgotten."""
_NETWORK = 64  # bits of an IPv6 address; a subscriber has all addresses that share them


class AddressLimit:
    """A burst of at most `maximum`; the allowance refills evenly in a minute. For use on the event loop."""

    def __init__(self, maximum: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.maximum = maximum
        self._interval, self._burst = 60.0 / maximum, 60.0
        self._clock = clock
        self._idle_at: OrderedDict[str, float] = OrderedDict()

    def seconds_to_wait(self, address: str | None) -> float:
        """Counts one request and returns 0; at the limit, returns the number of seconds to wait instead."""
        now, network = self._clock(), _network_of(address)
        idle_at = max(self._idle_at.get(network, now), now)
        wait = idle_at + self._interval - now - self._burst
        if wait > 1e-6:  # the rounding error that sums of intervals may have
            return wait
        self._idle_at[network] = idle_at + self._interval
        if len(self._idle_at) > _MAX_ENTRIES:
            self._idle_at.popitem(last=False)
        return 0.0


def _network_of(address: str | None) -> str:
    try:
        found = ipaddress.ip_address(address or "")
    except ValueError:  # a Unix socket's peer has none
        return ""
    if isinstance(found, ipaddress.IPv6Address):
        return str(found.ipv4_mapped or ipaddress.IPv6Network((int(found), _NETWORK), strict=False))
    return str(found)
