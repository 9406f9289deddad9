"""Engines that execute a bundle's graphs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_fg.public_names import lazy_names

_MODULES = "base onnxruntime options plan plan_cache plan_provider selection tensorrt"

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(__name__, {}, _MODULES.split())
