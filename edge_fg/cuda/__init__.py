"""The only home of CUDA in the runtime: device, memory, streams, graphs and kernels.

Importing it loads no CUDA package and touches no device: that happens when a `Device` is made.
"""

from edge_fg.cuda.buffers import DeviceBuffer, HostBuffer, copy_to_device, copy_to_host
from edge_fg.cuda.context import Device
from edge_fg.cuda.graph import Graph
from edge_fg.cuda.module import Function, Module
from edge_fg.cuda.stream import Event, Stream

__all__ = [
    "Device",
    "DeviceBuffer",
    "Event",
    "Function",
    "Graph",
    "HostBuffer",
    "Module",
    "Stream",
    "copy_to_device",
    "copy_to_host",
]
