"""Old names that work until 1.0, with a warning."""

from __future__ import annotations

import warnings
from typing import Any, TypeVar

T = TypeVar("T")


def deprecated_alias(new: str) -> property:
    """Return a read-only property that warns and then gives the attribute `new`.

    Examples
    --------
    >>> class Visit:
    ...     started_s = 1.5
    ...     started = deprecated_alias("started_s")
    """

    def get(owner: Any) -> Any:
        old = f"{type(owner).__name__}.{alias.old}"
        message = f"{old} is deprecated and goes with 1.0: use {new}"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        return getattr(owner, new)

    alias = _Alias(get, doc=f"Deprecated: use `{new}`.")
    return alias


class _Alias(property):
    old = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.old = name


def deprecated_argument(new: str, value: T | None, old: str, old_value: T | None) -> T | None:
    """Return what an argument was given as, under its new name or, with a warning, its old one.

    To be called by the function whose argument it is.
    """
    if old_value is None:
        return value
    message = f"the argument `{old}` is deprecated and goes with 1.0: use `{new}`"
    warnings.warn(message, DeprecationWarning, stacklevel=3)
    return old_value
