"""Forwarding headers, trusted only from a configured proxy.

`X-Forwarded-Host` and `X-Forwarded-Proto` decide the addresses in our answers, to which clients then send
their tokens; `X-Forwarded-For` is the caller whose sign-ins are counted. From a configured proxy they take
the place of the request's `Host`, scheme and peer. They are removed from requests of every other peer,
together with the other forwarding headers (`Forwarded`, `X-Forwarded-Port` and the like), which nothing here
uses, so no code behind this middleware can trust one by mistake.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import TypeAlias

from starlette.types import ASGIApp, Receive, Scope, Send

from adaptry.core.errors import Invalid

_FORWARDING = b"x-forwarded-"
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


def networks_of(proxies: Iterable[str]) -> tuple[Network, ...]:
    """Networks of addresses (`10.0.0.5`) and CIDR blocks (`10.0.0.0/24`). Raises `Invalid` for others."""
    return tuple(_network(proxy) for proxy in proxies)


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text.strip())
    except ValueError as error:
        raise Invalid(
            f"not a proxy's address: {text!r} (expected an IP address such as 10.0.0.5, or a CIDR block such"
            " as 10.0.0.0/24)"
        ) from error


class ForwardedHeaders:
    """The middleware; `networks` are the addresses that proxies call from, none by default."""

    def __init__(self, app: ASGIApp, networks: tuple[Network, ...] = ()) -> None:
        self.app = app
        self.networks = networks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            sent: list[tuple[bytes, bytes]] = scope["headers"]
            kept = [one for one in sent if one[0] != b"forwarded" and not one[0].startswith(_FORWARDING)]
            if self._is_proxy(scope.get("client")):
                host, scheme = _last(sent, b"x-forwarded-host"), _last(sent, b"x-forwarded-proto")
                if host:
                    kept = [*((name, value) for name, value in kept if name != b"host"), (b"host", host)]
                if scheme:
                    scope["scheme"] = scheme.decode("latin-1").lower()
                if caller := _last(sent, b"x-forwarded-for"):
                    scope["client"] = (caller.decode("latin-1"), 0)
            scope["headers"] = kept
        await self.app(scope, receive, send)

    def _is_proxy(self, peer: tuple[str, int] | None) -> bool:
        if not self.networks or peer is None:
            return False
        try:
            address = ipaddress.ip_address(peer[0])
        except ValueError:
            return False  # a Unix socket's peer has no address
        # An IPv4 peer of a socket that listens on `::` is written ::ffff:10.0.0.5.
        address = getattr(address, "ipv4_mapped", None) or address
        return any(address in network for network in self.networks)


def _last(headers: list[tuple[bytes, bytes]], name: bytes) -> bytes:
    """The last value: a proxy that appends to its caller's header adds its own value at the end."""
    values = [value for key, value in headers if key == name]
    return values[-1].rpartition(b",")[2].strip() if values else b""
