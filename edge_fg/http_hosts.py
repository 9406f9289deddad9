"""Who may ask: addresses to bind to, and names that a browser may call us by."""

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
        Others could reach `host`, and nobody said that they may.
    """
    if not (allow_remote or is_loopback(host)):
        raise UsageError(
            f"{host or 'an empty host'} lets everybody on the network look: bind to 127.0.0.1, or "
            "say allow_remote=True"
        )


class HostNames:
    """Names that requests may carry in their Host header.

    A page of a foreign site can have its own name resolved to this machine and so read what is
    meant for it (DNS rebinding). Its requests carry that name; ours carry an address or one of
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
        """Return whether a Host header is one of ours."""
        if header is None:
            return False
        name = _without_port(header.strip().lower()).rstrip(".")
        address = _address(name)
        if address is not None:
            # An address is not resolved, so nobody can have turned it to us.
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
