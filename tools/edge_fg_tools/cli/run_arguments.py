"""How the arguments of `edge-fg run` are read."""

from __future__ import annotations

import argparse
import math
from typing import NamedTuple

from edge_fg.errors import UsageError
from edge_fg.http_hosts import is_loopback
from edge_fg.pipeline import Policy, parse_policy


class Address(NamedTuple):
    """Where to listen; `remote` where others are meant to reach it."""

    host: str
    port: int
    remote: bool


def address(text: str) -> Address:
    """Parse ``[HOST:]PORT``; without a host only this machine is meant."""
    host, colon, port = text.rpartition(":")
    if not (port.isascii() and port.isdigit() and int(port[:6]) <= 65535) or (colon and not host):
        raise argparse.ArgumentTypeError(f"{text!r} is no [HOST:]PORT")
    if not host:
        return Address("127.0.0.1", int(port), remote=False)
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise argparse.ArgumentTypeError(f"write [{host}]:{port} for an IPv6 address")
    return Address(host, int(port), remote=not is_loopback(host))


def above_zero(text: str) -> float:
    """Parse a number above zero."""
    number = float(text)
    if not (math.isfinite(number) and number > 0):
        raise argparse.ArgumentTypeError(f"{text} is not a number above zero")
    return number


def policy(text: str) -> Policy:
    """Parse a policy."""
    try:
        return parse_policy(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
