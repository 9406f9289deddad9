"""Who may send requests: addresses to bind to, and host names that requests may use."""

from __future__ import annotations

import ipaddress
import socket

from edge_fg.errors import UsageError

_LOOPBACK_NAMES = frozenset({"localhost", "localhost.localdomain", "ip6-localhost"})


def is_loopback(host: str) -> bool:
    """Return whether only programs on this machine can reach a server bound to `host`."""
    if host.lower() in _LOOPBACK_NAMES:
        return True
    address = _address(host)
    return address is not None and address.is_loopback


def check_bindable(host: str, allow_remote: bool) -> None:
    """Refuse to show a camera to the network by accident.

    Raises
    ------
    UsageError
        Other machines could reach `host`, and `allow_remote` is False.
    """
    if not (allow_remote or is_loopback(host)):
        raise UsageError(
            f"with {host or 'an empty host'} everybody on the network can see what is served: bind "
            "to 127.0.0.1, or set allow_remote=True"
        )


class HostNames:
    """Names that requests may carry in their Host header.

    A foreign web page can let its own name resolve to this machine and so read what the machine
    serves (DNS rebinding). Requests of that page carry that name; others carry an address or one of
    the names below.

    Parameters
    ----------
    host
        What the server is bound to.
    more
        Further names, of a proxy for example.
    """

    def __init__(self, host: str, more: tuple[str, ...] = ()) -> None:
        self._remote = not is_loopback(host)
        self._names = {name.lower() for name in (*_LOOPBACK_NAMES, *more)}
        if self._remote:
            own = socket.gethostname().lower()
            self._names |= {host.lower(), own, own.partition(".")[0], f"{own}.local"}

    def allows(self, header: str | None) -> bool:
        """Return whether a Host header names this server."""
        if header is None:
            return False
        name = _without_port(header.strip().lower()).rstrip(".")
        address = _address(name)
        if address is not None:
            # An address is not resolved, so a foreign page can't point it at this machine.
            return self._remote or address.is_loopback
        return name in self._names


def _without_port(header: str) -> str:
    if header.startswith("["):
        return header[1:].partition("]")[0]
    name, colon, port = header.rpartition(":")
    return name if colon and port.isdigit() else header


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
