"""Public names that are loaded when they are first used, so that imports stay quick."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import Any


def lazy_names(
    package: str, names_of: Mapping[str, str], submodules: Iterable[str] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return the functions ``__getattr__`` and ``__dir__`` of a package.

    To be assigned where a type checker doesn't look (``if not TYPE_CHECKING``), else it would
    take every name for granted.

    Parameters
    ----------
    package
        Its ``__name__``.
    names_of
        By module, relative to the package: the names that stand in it, separated by blanks.
    submodules
        Modules that become attributes of the package as well.
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
