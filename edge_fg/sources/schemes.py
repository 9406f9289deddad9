"""Schemes of source strings that installed packages open.

A package adds one by an entry point of the group ``edge_fg.sources``, whose name is the scheme and
which names a function of the whole string (such as ``fieldguide://?seed=1``) and the
`SourceOptions` given by keyword; it returns a `Source`. See `edge_fg_tools.fieldguide.source`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from edge_fg.errors import SourceError
from edge_fg.sources.base import Source
from edge_fg.sources.options import SourceOptions

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


def find_scheme(scheme: str) -> EntryPoint | None:
    """Return the entry point of a scheme (lower case), or None; nothing of it is imported."""
    # Here, for it takes long to import and most programs never need it.
    from importlib.metadata import entry_points

    found = sorted(
        entry_points(group="edge_fg.sources", name=scheme), key=lambda point: point.value
    )
    return found[0] if found else None


def open_scheme(uri: str, options: SourceOptions) -> Source:
    """Open a source through the package that provides its scheme; `SourceError` if that fails."""
    scheme = uri.partition("://")[0].lower()
    point = find_scheme(scheme)
    if point is None:
        raise SourceError(f"no installed package opens {scheme}://")
    try:
        opener: Callable[[str, SourceOptions], Source] = point.load()
    except (ImportError, AttributeError) as error:
        raise SourceError(
            f"{scheme}:// is opened by {point.value}, which can't be imported: {error}"
        ) from error
    return opener(uri, options)
