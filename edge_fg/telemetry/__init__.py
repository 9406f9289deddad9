"""What a running program is doing: latencies, counters, memory, temperatures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_fg.public_names import lazy_names

_MODULES = "device histogram jetson meter process prometheus stats status_line tegrastats"

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(__name__, {}, _MODULES.split())
