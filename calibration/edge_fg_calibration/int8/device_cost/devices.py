"""Devices that a variant's time is bounded for, with the peak rates of their data sheets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["int8", "fp16", "fp32"]
"""What a kernel multiplies; FP32 convolutions run as TF32, TensorRT's default."""


@dataclass(frozen=True)
class Device:
    """A GPU at its highest clocks; one multiply-accumulate is two operations."""

    name: str  # As reports call it
    bandwidth: float  # Bytes a second between GPU and memory
    tensor_rates: Mapping[Kind, float]  # Operations a second of dense matrix products
    vector_rate: float  # FP32 operations a second outside them: depthwise convolutions
    source: str  # Where the figures stand


def _tensor_rates(int8: float) -> dict[Kind, float]:
    """Return the dense rates of GPUs from Ampere on, where each wider type halves the rate.

    So the tables of "NVIDIA Ampere GA102 GPU Architecture" and "NVIDIA Ada GPU Architecture",
    appendix A, with FP16 accumulation as TensorRT may choose it.
    """
    return {"int8": int8, "fp16": int8 / 2, "fp32": int8 / 4}


def devices() -> dict[str, Device]:
    """Return the known devices by a short name; data sheets give sparse rates, twice the dense."""
    return {
        "agx-orin": Device(
            *("Jetson AGX Orin 64 GB", 204.8e9, _tensor_rates(170e12 / 2), 5.3e12),
            "Jetson AGX Orin Series Technical Brief: GPU with 170 sparse INT8 TOPS, 5.3 TFLOPS",
        ),
        "orin-nx": Device(
            *("Jetson Orin NX 16 GB", 102.4e9, _tensor_rates(60e12 / 2), 1.88e12),
            "Jetson Orin NX Series Data Sheet: 100 sparse INT8 TOPS, 40 of them of the DLAs; 1,024 "
            "CUDA cores at 918 MHz",
        ),
        "orin-nano": Device(
            *("Jetson Orin Nano 8 GB", 68e9, _tensor_rates(40e12 / 2), 1.28e12),
            "Jetson Orin Nano Series Data Sheet: 40 sparse INT8 TOPS; 1,024 CUDA cores at 625 MHz",
        ),
        "thor": Device(
            *("Jetson AGX Thor", 273e9, _tensor_rates(1035e12 / 2), 8.06e12),
            "Jetson Thor Series Data Sheet, T5000: 1,035 sparse INT8 TOPS; 2,560 CUDA cores at "
            "1.575 GHz",
        ),
        "rtx-4090": Device(
            *("GeForce RTX 4090", 1008e9, _tensor_rates(660.6e12), 82.6e12),
            "NVIDIA Ada GPU Architecture, appendix A: 660.6 dense INT8 TOPS, 82.6 TFLOPS",
        ),
    }


@dataclass(frozen=True)
class Rates:
    """How much of its peak rates a device reaches, and what each kernel costs on top.

    No data sheet says it: the two sets below are assumptions that shall hold reality between them.
    """

    of_bandwidth: float  # Share, 0..1
    of_peak: float  # Share, 0..1
    launch_s: float  # Seconds from the end of one kernel to the beginning of the next


RATES = (Rates(1.0, 1.0, 0.5e-6), Rates(0.6, 0.3, 5e-6))
"""The best: nothing is lost, kernels follow each other as in a CUDA graph (0.5 us: "Getting Started
with CUDA Graphs", NVIDIA's technical blog). The worst: small kernels that fill a GPU badly, and
launches that a slow processor is late with."""
