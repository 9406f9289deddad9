"""Public names: loaded when they are first used, and kept until 1.0 once they are renamed."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import Any, TypeVar

T = TypeVar("T")


def lazy_names(
    package: str, names_of: Mapping[str, str], submodules: Iterable[str] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return ``__getattr__`` and ``__dir__`` of a package that loads names when they are used.

    To be assigned where a type checker doesn't look (``if not TYPE_CHECKING``), else it would
    take every name for granted. `names_of` holds by module, relative to the package, the names that
    stand in it, separated by blanks; `submodules` become attributes of the package as well.
    """
    module_of = {name: module for module, names in names_of.items() for name in names.split()}
    known = {*module_of, *submodules}

    def get(name: str) -> Any:
        if name not in known:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = import_module(f"{package}.{module_of.get(name, name)}")
        value = getattr(module, name) if name in module_of else module
        setattr(sys.modules[package], name, value)
        return value

    return get, lambda: sorted({*vars(sys.modules[package]), *known})


def deprecated_alias(new: str) -> property:
    """Return a read-only property that warns and then gives the attribute `new`."""

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
