"""Lowering the rate when the device is too hot or draws too much."""

from __future__ import annotations

import itertools
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Final

from edge_fg.errors import EdgeFGError, UsageError
from edge_fg.telemetry.device import Reading
from edge_fg.telemetry.stats import ThrottleStats

_logger = logging.getLogger("edge_fg")

STEPS: Final = (1.0, 0.75, 0.5, 0.35, 0.25, 0.1)


@dataclass(eq=False, repr=False)
class Throttle:
    """Lowers the rate of answers step by step while a limit is exceeded, and raises it again.

    One step down while a reading lies above its limit, one step up while all lie below theirs by
    the hysteresis; in between nothing changes. After a step, the device gets time to settle.
    Every step is logged. A reading that fails is logged once and changes nothing.

    Parameters
    ----------
    read
        Gives the sensors' values; called every `period` in a thread of its own.
    max_temperature_c
        Degrees Celsius; None for no limit.
    max_power_w
        Watts; None for no limit.
    hysteresis_c
        Degrees Celsius below the limit at which the rate may rise.
    hysteresis_share
        The same for the power, as a share of its limit.
    steps
        Shares of the full rate, falling from 1.
    period
        Seconds between two readings.
    settle
        Seconds after a step before the next.
    clock
        Seconds.

    Raises
    ------
    UsageError
        There is no limit, or a value makes no sense.
    """

    read: Callable[[], Reading]
    _: KW_ONLY
    max_temperature_c: float | None = None
    max_power_w: float | None = None
    hysteresis_c: float = 5.0
    hysteresis_share: float = 0.1
    steps: Sequence[float] = STEPS
    period: float = 2.0
    settle: float = 10.0
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        _check(self)
        self._lock = threading.RLock()
        self._level = 0
        self._full_rate = 0.0
        self._reason: str | None = None
        self._reading = Reading()
        self._changed_at = -math.inf
        self._failure: str | None = None

    def update(self, rate: float) -> None:
        """Read the sensors and decide; `rate` is the present number of answers a second."""
        try:
            reading = self.read()
        except (EdgeFGError, OSError, ValueError) as error:
            kind = type(error).__name__
            if self._failure != kind:
                _logger.warning(
                    "throttle: the sensors can't be read, the rate stays as it is: %s", error
                )
            self._failure = kind
            return
        self._failure = None
        now = self.clock()
        with self._lock:
            self._reading = reading
            if self._level and self._full_rate <= 0:
                self._full_rate = rate  # it was too hot before the first answers came
            if now - self._changed_at < self.settle:
                return
            over = self._excess(reading)
            if over is not None and self._level < len(self.steps) - 1:
                if self._level == 0:
                    self._full_rate = rate
                self._move(1, over, now)
            elif over is None and self._level and self._is_well_below(reading):
                self._move(-1, self._reason or "", now)

    def rate_limit(self) -> float | None:
        """Return the answers a second that are allowed now; None where nothing is lowered."""
        with self._lock:
            # Before the first answers there is no rate to take a share of.
            if self._level == 0 or self._full_rate <= 0:
                return None
            return self._full_rate * self.steps[self._level]

    def stats(self) -> ThrottleStats:
        """Return its state."""
        with self._lock:
            return ThrottleStats(
                self.steps[self._level],
                self.rate_limit(),
                self._reason,
                self._reading.temperature_c,
                self._reading.power_w,
            )

    def _move(self, by: int, why: str, now: float) -> None:
        self._level += by
        self._changed_at = now
        self._reason = why if self._level else None
        share = self.steps[self._level]
        if self._level == 0:
            _logger.info("throttle: back to the full rate")
        elif by > 0:
            _logger.warning("throttle: %s, lowered to %.0f %% of the rate", why, 100 * share)
        else:
            _logger.info("throttle: cooler, raised to %.0f %% of the rate", 100 * share)

    def _limits(self, reading: Reading) -> Iterator[tuple[float | None, float, float, str]]:
        """Give each limit: what was read, the limit, where the rate may rise again, the unit."""
        if self.max_temperature_c is not None:
            limit = self.max_temperature_c
            yield reading.temperature_c, limit, limit - self.hysteresis_c, "°C"
        if self.max_power_w is not None:
            limit = self.max_power_w
            yield reading.power_w, limit, limit * (1 - self.hysteresis_share), "W"

    def _excess(self, reading: Reading) -> str | None:
        for value, limit, _, unit in self._limits(reading):
            if value is not None and value > limit:
                return f"{value:.1f} {unit} is over {limit:g} {unit}"
        return None

    def _is_well_below(self, reading: Reading) -> bool:
        """Return whether every limit is kept by its hysteresis; a missing reading is not below."""
        return all(v is not None and v <= low for v, _, low, _ in self._limits(reading))


class ThrottleMonitor:
    """Updates a throttle every period, in a thread of its own: a sensor may take its time.

    `rate` gives the answers a second, while answers come.
    """

    def __init__(self, throttle: Throttle, rate: Callable[[], float]) -> None:
        self._throttle = throttle
        self._rate = rate
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="edge_fg-throttle", daemon=True)

    def start(self) -> None:
        """Start the updates."""
        self._thread.start()

    def close(self) -> None:
        """End the updates and wait for the thread."""
        self._stopped.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _watch(self) -> None:
        while not self._stopped.wait(self._throttle.period):
            try:
                self._throttle.update(self._rate())
            # A sensor's reader that fails in its own way must not end the watch.
            except Exception:
                _logger.exception("throttle: reading the sensors failed")


def _check(given: Throttle) -> None:
    temperature, power, steps = given.max_temperature_c, given.max_power_w, given.steps
    if temperature is None and power is None:
        raise UsageError("a throttle needs a limit: give max_temperature_c or max_power_w")
    if temperature is not None and not math.isfinite(temperature):
        raise UsageError(f"max_temperature_c must be a number, not {temperature}")
    if power is not None and not (math.isfinite(power) and power > 0):
        raise UsageError(f"max_power_w must be a positive number, not {power}")
    if not given.hysteresis_c >= 0 or not 0 <= given.hysteresis_share < 1:
        raise UsageError("hysteresis_c must not be negative, hysteresis_share 0 to below 1")
    falling = all(a > b for a, b in itertools.pairwise(steps))
    if len(steps) < 2 or steps[0] != 1 or not falling or steps[-1] <= 0:
        raise UsageError(f"steps must fall from 1 and stay above 0, not {tuple(steps)}")
    if not (math.isfinite(given.period) and given.period > 0) or not given.settle >= 0:
        raise UsageError(
            f"period and settle must be seconds, not {given.period} and {given.settle}"
        )
