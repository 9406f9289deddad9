"""Kinds that fail on purpose: what the runner must find, and put down to the right case."""

from __future__ import annotations

import ctypes
import logging
import time
from pathlib import Path
from random import Random

import numpy as np


def _fail(_random: Random, _folder: Path) -> None:
    raise KeyError("no")


def _crash(_random: Random, _folder: Path) -> None:
    ctypes.string_at(0)


def _hang(_random: Random, _folder: Path) -> None:
    while True:
        time.sleep(60)


def _grow(_random: Random, _folder: Path) -> None:
    np.ones(300 << 20, np.uint8)


def _say_too_much(_random: Random, _folder: Path) -> None:
    logging.getLogger("edge_fg.child").warning("\x1b[2J")  # no filter of ours sees this one


KINDS = {
    "broken-fail": _fail,
    "broken-crash": _crash,
    "broken-hang": _hang,
    "broken-grow": _grow,
    "broken-message": _say_too_much,
}
