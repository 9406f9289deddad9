"""Answers to the challenges of HTTP servers: Digest and Basic."""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

_HASHES: Final[dict[str, Any]] = {"SHA-256": hashlib.sha256, "MD5": hashlib.md5}
_SCHEME = re.compile(r"(?:^|,)\s*([A-Za-z]+)(?=\s+[A-Za-z]|\s*$|\s*,)")
_PARAMETER = re.compile(r'(?<![A-Za-z-])([A-Za-z-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')


@dataclass(frozen=True)
class Credentials:
    """A user's name and password, which a representation never shows."""

    user: str = field(repr=False)
    password: str = field(repr=False)


def parse_challenges(headers: Iterable[str]) -> list[tuple[str, dict[str, str]]]:
    """Read ``WWW-Authenticate`` headers as (scheme, parameters), leaving out what can't be read.

    The scheme and the names of the parameters are in lower case.
    """
    challenges: list[tuple[str, dict[str, str]]] = []
    for header in headers:
        # Commas part parameters as well as challenges; only a challenge begins with a bare word.
        marks = list(_SCHEME.finditer(_without_quoted(header)))
        ends = [mark.start() for mark in marks[1:]] + [len(header)]
        for mark, end in zip(marks, ends, strict=False):
            text = header[mark.end() : end]
            parameters = {
                name.lower(): re.sub(r"\\(.)", r"\1", quoted) if quoted else bare
                for name, quoted, bare in _PARAMETER.findall(text)
            }
            challenges.append((mark[1].lower(), parameters))
    return challenges


def answer(
    challenges: list[tuple[str, dict[str, str]]],
    credentials: Credentials,
    uri: str,
    *,
    nonce_of_client: str | None = None,
) -> str | None:
    """Return the value of ``Authorization`` for the strongest challenge, or None.

    Digest with SHA-256 is preferred to MD5 (RFC 7616), and that to Basic (RFC 7617), which sends
    the password itself. `uri` is path and query as they stand in the request. `nonce_of_client` is
    for tests; it is drawn at random when None.
    """
    for algorithm in _HASHES:
        for scheme, parameters in challenges:
            stated = parameters.get("algorithm", "MD5").upper()
            if scheme == "digest" and stated.removesuffix("-SESS") == algorithm:
                nonce = nonce_of_client or secrets.token_hex(16)
                return _digest(parameters, credentials, uri, nonce)
    if any(scheme == "basic" for scheme, _ in challenges):
        pair = f"{credentials.user}:{credentials.password}".encode()
        return "Basic " + base64.b64encode(pair).decode()
    return None


def _digest(
    challenge: dict[str, str], credentials: Credentials, uri: str, cnonce: str
) -> str | None:
    stated = challenge.get("algorithm", "MD5").upper()
    hashed = _HASHES[stated.removesuffix("-SESS")]

    def digest(*parts: str) -> str:
        return str(hashed(":".join(parts).encode()).hexdigest())

    realm, nonce = challenge.get("realm", ""), challenge.get("nonce", "")
    offered = [word.strip() for word in challenge.get("qop", "").split(",") if word.strip()]
    if offered and "auth" not in offered:
        return None
    secret = digest(credentials.user, realm, credentials.password)
    if stated.endswith("-SESS"):
        secret = digest(secret, nonce, cnonce)
    count, asked = "00000001", digest("GET", uri)
    middle = (nonce, count, cnonce, "auth") if offered else (nonce,)
    fields = {
        "username": credentials.user,
        "realm": realm,
        "nonce": nonce,
        "uri": uri,
        "response": digest(secret, *middle, asked),
    }
    if "opaque" in challenge:
        fields["opaque"] = challenge["opaque"]
    escaped = {name: re.sub(r'(["\\])', r"\\\1", value) for name, value in fields.items()}
    quoted = [f'{name}="{value}"' for name, value in escaped.items()]
    if "algorithm" in challenge:
        quoted.append(f"algorithm={stated}")
    if offered:
        quoted += ["qop=auth", f"nc={count}", f'cnonce="{cnonce}"']
    return "Digest " + ", ".join(quoted)


def _without_quoted(header: str) -> str:
    """Return `header` with what stands in quotes blanked out, character for character."""
    return re.sub(r'"(?:[^"\\]|\\.)*"', lambda found: '"' + "_" * (len(found[0]) - 2) + '"', header)
