"""Addresses of servers: the one to listen at, and the host names that are answered for.

A website can let its own name point to 127.0.0.1 and so have a visitor's browser ask a server of this machine
(DNS rebinding). Such a request names the website as its host. An address as a host cannot come about so.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import Collection, Iterable, Iterator

from cm_ray.errors import UserError, setting


@contextlib.contextmanager
def bound(host: str, port: int) -> Iterator[socket.socket]:
    """Bind an address until the block ends. Raises UserError when another program listens there."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
        except OSError as error:
            raise UserError(
                f"Could not listen at {host}:{port} ({error.strerror}); "
                f"give another {setting('port')} or {setting('host')}."
            ) from error
        yield listening


def known_names(names: Iterable[str]) -> frozenset[str]:
    """Return the names, in lower case, that a server answers for: `localhost` and those that are given."""
    return frozenset({"localhost", *(name.lower().rstrip(".") for name in names)})


def is_known(host: str, names: Collection[str]) -> bool:
    """Return whether a server answers for a host: an address, or one of the names. See `host_of`."""
    if host in names:
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def host_of(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Return the host of a request without its port, in lower case; empty without one or with several.

    headers: names, in lower case, and values, as ASGI has them.
    """
    hosts = [value for name, value in headers if name == b"host"]
    if len(hosts) != 1:
        return ""
    host = hosts[0].decode("latin-1").lower()
    if host.startswith("["):  # an address of IPv6
        host, _, rest = host[1:].partition("]")
        return host if rest[:1] in ("", ":") else ""
    return host.partition(":")[0].rstrip(".")
