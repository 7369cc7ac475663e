"""Which addresses the server itself may connect to: public ones, and networks that its operator allows.

A name that any user may enter could resolve to the server's own machine, its neighbours, or a cloud's
metadata service (server-side request forgery), so the rule checks the resolved address, never the name.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import TypeAlias

from adaptry.core.errors import Invalid

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_CALLED_GLOBAL = (  # global according to some versions of Python
    ipaddress.IPv4Network("192.0.0.0/24"),  # protocols
    ipaddress.IPv4Network("192.88.99.0/24"),  # relays of 6to4
    ipaddress.IPv6Network("64:ff9b:1::/48"),  # NAT64 of one network
    ipaddress.IPv6Network("3fff::/20"),  # documentation
    ipaddress.IPv6Network("fec0::/10"),  # site-local: deprecated, and still routed inside some networks
)


def parse_network(text: str) -> Network:
    """An address (`10.0.0.5`) or CIDR block (`10.0.0.0/24`). Raises `Invalid`."""
    try:
        return ipaddress.ip_network(text.strip())
    except ValueError as error:
        raise Invalid(
            f"not a network: {text[:80]!a} (expected an IP address such as 10.0.0.5, or a CIDR block such as"
            " 10.0.0.0/24)"
        ) from error


def is_public(address: Address) -> bool:
    """Whether the address belongs to the public internet.

    An IPv6 address that carries an IPv4 address (mapped, 6to4, Teredo, NAT64) is as public as that one.
    """
    if isinstance(address, ipaddress.IPv6Address):
        inner = _embedded(address)
        if inner is not None:
            return is_public(inner)
    if is_inside(address, _CALLED_GLOBAL):
        return False
    is_special = address.is_multicast or address.is_reserved or address.is_unspecified
    return address.is_global and not is_special and not address.is_link_local


def is_public_host(host: str) -> bool:
    """Whether the host of a URL may be public, without looking it up: False for addresses that are not, and
    for `localhost`.
    """
    try:
        return is_public(ipaddress.ip_address(host))
    except ValueError:
        return host != "localhost" and not host.endswith(".localhost")


def is_inside(address: Address, networks: Iterable[Network]) -> bool:
    """Whether one of the networks includes the address, or the IPv4 address mapped into it."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    one = mapped or address
    return any(one.version == network.version and one in network for network in networks)


def _embedded(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    teredo = address.teredo[1] if address.teredo else None
    return address.ipv4_mapped or address.sixtofour or teredo
