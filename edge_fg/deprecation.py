"""Old names that work until 1.0, with a warning."""

from __future__ import annotations

import warnings
from typing import Any


def deprecated_alias(new: str) -> property:
    """Return a read-only property that warns and then gives the attribute `new`.

    Examples
    --------
    >>> class Visit:
    ...     started_s = 1.5
    ...     started = deprecated_alias("started_s")
    """

    def get(owner: Any) -> Any:
        kind = type(owner).__name__
        message = f"this name of {kind}.{new} is deprecated and goes with 1.0: use {new}"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        return getattr(owner, new)

    return property(get, doc=f"Deprecated: use `{new}`.")
