"""Where an HTTP request goes, and with which credentials."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import quote, unquote, urljoin, urlsplit

from edge_fg.errors import SourceError
from edge_fg.sources.live.http_auth import Credentials

_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True)
class HttpAddress:
    """Where a request goes, without its credentials."""

    scheme: str
    host: str
    port: int
    target: str

    def redirected(
        self, location: str, name: str, credentials: Credentials | None
    ) -> tuple[HttpAddress, Credentials | None]:
        """Return where a redirection of the source `name` leads, and the credentials for there.

        Those of this request stay with the server they are for. `SourceError` if it leads to
        something else than HTTP, or makes no sense.
        """
        host = f"[{self.host}]" if ":" in self.host else self.host
        try:
            url = urljoin(f"{self.scheme}://{host}:{self.port}{self.target}", location)
            scheme = urlsplit(url).scheme
        except ValueError:
            raise SourceError(f"can't open {name}: it redirects to no address") from None
        if scheme not in _PORTS:
            raise SourceError(f"can't open {name}: it redirects to something else than HTTP")
        there, given = locate(url, name)
        same_server = replace(there, target=self.target) == self
        return there, given or (credentials if same_server else None)


def locate(url: str, name: str) -> tuple[HttpAddress, Credentials | None]:
    """Return where a request to `url` goes, and the credentials in it.

    `SourceError` if it is not an address of HTTP; `name` is the source's, fit to be shown.
    """
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname
        host = host.encode("idna").decode() if host and ":" not in host else host
        text = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        # What people type may hold spaces and letters that a request can't.
        target = "".join(c if "!" <= c <= "~" else quote(c) for c in text)
        if host and re.search(r"[\0-\x20\x7f]", host):
            host = None
    except ValueError:
        # Without the cause, whose text may hold the password.
        host = None
    if not host or parts.scheme not in _PORTS:
        raise SourceError(f"can't open {name}: its address makes no sense")
    credentials = None
    if parts.username is not None:
        credentials = Credentials(unquote(parts.username), unquote(parts.password or ""))
    address = HttpAddress(parts.scheme, host, port or _PORTS[parts.scheme], target)
    return address, credentials
