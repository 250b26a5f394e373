"""Decides which addresses webhooks may go to: a tenant's URL must not reach into our networks.

A name is resolved once and the connection goes to that very address, so a name that answers
differently a second time gains nothing. Called by `endpoints` for URLs and `sending` for addresses.
"""

import ipaddress
import re
from ipaddress import IPv4Address, IPv6Address

import httpx

from controlplane.errors import UnprocessableRequest

MAX_URL_CHARS = 2000

_PRINTABLE = re.compile(r"[\x21-\x7e]+")
# What `is_global` calls global, yet leads inside: addresses that stand for others, and the address
# under which Azure's hosts answer their machines.
_NOT_PUBLIC = tuple(
    ipaddress.ip_network(block)
    for block in (
        *("192.0.0.0/24", "192.88.99.0/24", "198.18.0.0/15", "168.63.129.16/32"),
        *("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/23", "3fff::/20", "5f00::/16"),
    )
)
_GLOBAL_IPV6 = ipaddress.ip_network("2000::/3")


def check_url(url: str, *, allow_loopback: bool) -> str:
    """Return a URL that may be called, in its normal form.

    Args:
        allow_loopback: also `http://` and loopback addresses, for tests and laptops.

    Raises:
        UnprocessableRequest: not such a URL; the message says why.
    """
    if len(url) > MAX_URL_CHARS or not _PRINTABLE.fullmatch(url):
        raise _refused("must be an absolute URL of printable ASCII")
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        raise _refused("is not a URL") from None
    if not parsed.host or parsed.userinfo or parsed.fragment:
        raise _refused("must name a host, and neither a user nor a fragment")
    if parsed.port is not None and not 0 < parsed.port < 2**16:
        raise _refused("must name a port from 1 to 65535, or none")
    literal = _literal(parsed.host)
    loopback = parsed.host == "localhost" or (literal is not None and literal.is_loopback)
    if loopback and allow_loopback and parsed.scheme in ("http", "https"):
        return str(parsed)
    if parsed.scheme != "https":
        raise _refused("must begin with https://")
    if parsed.host == "localhost" or (literal is not None and not is_public(literal)):
        raise _refused("must name a public address")
    return str(parsed)


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Return whether an address is one of the open internet's, and stands for no other."""
    if not address.is_global or address.is_multicast or address.is_reserved:
        return False
    if isinstance(address, IPv6Address) and (address not in _GLOBAL_IPV6 or address.ipv4_mapped):
        return False
    return not any(address in block for block in _NOT_PUBLIC if block.version == address.version)


def choose(resolved: list[str], *, allow_loopback: bool) -> str | None:
    """Return the address to connect to; None when there is none, or any of them leads inside."""
    addresses = [ipaddress.ip_address(text.partition("%")[0]) for text in resolved]
    if allow_loopback and addresses and all(address.is_loopback for address in addresses):
        return str(addresses[0])
    if not addresses or not all(is_public(address) for address in addresses):
        return None
    return str(addresses[0])


def _literal(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _refused(reason: str) -> UnprocessableRequest:
    return UnprocessableRequest(f"url: {reason}", param="url")
