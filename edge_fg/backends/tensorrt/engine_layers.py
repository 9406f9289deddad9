"""What an engine inspector tells of an engine's layers."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass

_log = logging.getLogger("edge_fg")


@dataclass(frozen=True)
class EngineLayer:
    """One layer of an engine: its name and kind, and the types that it reads and writes."""

    name: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def parse_layers(text: str) -> list[EngineLayer]:
    """Read the JSON of an engine inspector, of TensorRT 10 or 11.

    With ``DETAILED`` verbosity a layer is an object, with less only a name. TensorRT 10 says
    ``"Format/Datatype"`` of a tensor; 11 says ``"Format"`` and ``"DataType"``. The list is empty
    where `text` is not such a JSON: only people read it, so nothing depends on it.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        _log.info("the engine inspector gave no JSON")
        return []
    found = document.get("Layers") if isinstance(document, dict) else None
    return [_layer(entry) for entry in found] if isinstance(found, list) else []


def _layer(entry: object) -> EngineLayer:
    if not isinstance(entry, dict):
        return EngineLayer(str(entry), "", (), ())
    kind = str(entry.get("LayerType", ""))
    inputs, outputs = (_types(entry.get(side)) for side in ("Inputs", "Outputs"))
    return EngineLayer(str(entry.get("Name", "")), kind, inputs, outputs)


def _types(tensors: object) -> tuple[str, ...]:
    if not isinstance(tensors, list):
        return ()
    kinds = []
    for tensor in tensors:
        if isinstance(tensor, dict):
            kind = tensor.get("DataType") or tensor.get("Format/Datatype") or tensor.get("Format")
            kinds.append(str(kind))
    return tuple(kinds)
