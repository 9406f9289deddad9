"""Passwords of network streams: given beside the address, and written so that a URL takes them.

The command line of a program can be read by every user of the machine, and ends in the shell's
history; a file can be kept to one user, and the environment is.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from urllib.parse import quote

from edge_fg.errors import SourceError, UsageError
from edge_fg.printing import reason
from edge_fg.sources.options import SourceOptions
from edge_fg.sources.uri import SourceDescription

_PLACE = "{password}"
_MOST_BYTES = 4096


def with_password(description: SourceDescription, options: SourceOptions) -> SourceDescription:
    """Return a stream's description with the password that `options` name in its address.

    It takes the place of ``{password}``, or else belongs to the user before the host. `UsageError`
    if there is no such place, or if what stands before the host must be escaped; `SourceError` if
    the password can't be read.
    """
    name, url = description.name, str(description.target)
    _check_escaped(name, url)
    if options.password_file is None and options.password_env is None:
        return description
    if options.password_file is not None and options.password_env is not None:
        raise UsageError(f"{name}: give password_file or password_env, not both")
    password = quote(_read(name, options), safe="")
    if _PLACE in url:
        return replace(description, target=url.replace(_PLACE, password))
    scheme, _, rest = url.partition("://")
    authority = re.split(r"[/?#]", rest)[0]
    credentials, _, host = authority.rpartition("@")
    user, _, given = credentials.partition(":")
    if given:
        raise UsageError(f"{name} holds a password already: leave it out of the address")
    if not user:
        raise UsageError(
            f"{name}: write {scheme}://USER@host for the user whose password it is, or {_PLACE} "
            "where it belongs"
        )
    path = rest[len(authority) :]
    return replace(description, target=f"{scheme}://{user}:{password}@{host}{path}")


def _check_escaped(name: str, url: str) -> None:
    """Refuse an address whose user name or password ends it early, so that none can be reached."""
    rest = url.partition("://")[2]
    mark = re.search(r"[/?#]", rest.rpartition("@")[0])
    if mark is None:
        return
    # An "@" may stand in a path, too; but "user:pass" is no host and port.
    port = rest[: mark.start()].rpartition("@")[2].rpartition("]")[2].rpartition(":")
    if mark[0] == "#" or (port[1] and not port[2].isdigit()):
        raise UsageError(
            f"{name}: in a user name or password, write {mark[0]} as {quote(mark[0], safe='')}, "
            "or give the password by password_file or password_env"
        )


def _read(name: str, options: SourceOptions) -> bytes:
    if options.password_file is None:
        where = f"the environment variable {options.password_env}"
        password = os.environb.get(os.fsencode(options.password_env or ""), b"")
    else:
        where = options.password_file
        try:
            with open(options.password_file, "rb") as file:  # noqa: PTH123  it takes any text
                password = file.read(_MOST_BYTES + 1).rstrip(b"\r\n")
        except (OSError, ValueError) as error:
            raise SourceError(f"can't read the password of {name}: {reason(error)}") from error
    if not password or len(password) > _MOST_BYTES or b"\n" in password:
        raise SourceError(f"{where} holds no password for {name}: it must be one line")
    return password
