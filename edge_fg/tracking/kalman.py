"""Kalman filters for the centre and the size of a box."""

from __future__ import annotations

from dataclasses import dataclass

from edge_fg.boxes import Box, centre

# In sizes of the object: the error of a detection, the acceleration, the first guess of the
# speed, and the growth. A bird of 15 cm that takes off reaches a few metres a second within
# tenths of a second.
_OFF = 0.08
_ACCELERATION = 20.0
_FIRST_SPEED = 5.0
_GROWTH = 0.8


class AxisFilter:
    """Position and speed along one axis: a constant speed, disturbed by white acceleration.

    The discrete model is that of Bar-Shalom, Li and Kirubarajan, "Estimation with Applications to
    Tracking and Navigation" (2001), section 6.3.2. `deviation` is the standard deviation of a
    detection, in the units of `position`; `speed_deviation` that of its first speed, in units a
    second.
    """

    __slots__ = ("covariance", "position", "speed")

    def __init__(self, position: float, deviation: float, speed_deviation: float) -> None:
        self.position = position
        self.speed = 0.0
        self.covariance = (deviation**2, 0.0, speed_deviation**2)

    def predict(self, dt: float, acceleration: float) -> None:
        """Predict `dt` seconds ahead; `acceleration` is a standard deviation in units/s²."""
        at, both, fast = self.covariance
        noise = acceleration**2
        self.position += dt * self.speed
        self.covariance = (
            at + 2.0 * dt * both + dt * dt * fast + noise * dt**4 / 4.0,
            both + dt * fast + noise * dt**3 / 2.0,
            fast + noise * dt**2,
        )

    def innovation(self, deviation: float) -> float:
        """Return the variance of the next detection, in squared units."""
        return self.covariance[0] + deviation**2

    def update(self, found: float, deviation: float) -> None:
        """Correct the prediction by where it was found."""
        at, both, fast = self.covariance
        total = self.innovation(deviation)
        gain, gain_speed = at / total, both / total
        off = found - self.position
        self.position += gain * off
        self.speed += gain_speed * off
        self.covariance = (at - gain * at, both - gain * both, fast - gain_speed * both)


@dataclass
class _SideFilter:
    """A side of the box: a random walk."""

    value: float
    variance: float

    def predict(self, dt: float, growth: float) -> None:
        self.variance += growth**2 * dt

    def update(self, found: float, deviation: float) -> None:
        gain = self.variance / (self.variance + deviation**2)
        self.value += gain * (found - self.value)
        self.variance *= 1.0 - gain


class BoxFilter:
    """Filters the centre (constant velocity) and the sides (random walk) of a box, in pixels."""

    def __init__(self, box: Box) -> None:
        size = max(box[2:])
        self._x, self._y = (AxisFilter(at, _OFF * size, _FIRST_SPEED * size) for at in centre(box))
        self._width, self._height = (_SideFilter(side, (_OFF * size) ** 2) for side in box[2:])

    @property
    def box(self) -> Box:
        """(x, y, width, height), as expected now."""
        width, height = max(1.0, self._width.value), max(1.0, self._height.value)
        return self._x.position - width / 2, self._y.position - height / 2, width, height

    @property
    def speed(self) -> float:
        """How fast it moves, in its own sizes a second."""
        size = max(self._width.value, self._height.value, 1.0)
        return float((self._x.speed**2 + self._y.speed**2) ** 0.5 / size)

    def predict(self, dt: float) -> None:
        """Predict `dt` seconds ahead."""
        size = max(self.box[2:])
        for axis in (self._x, self._y):
            axis.predict(dt, _ACCELERATION * size)
        for side in (self._width, self._height):
            side.predict(dt, _GROWTH * size)

    def brake(self, factor: float) -> None:
        """Scale the speed: the longer it is not seen, the less likely it still moves."""
        self._x.speed *= factor
        self._y.speed *= factor

    def update(self, box: Box) -> None:
        """Correct the prediction by where it was found."""
        off = _OFF * max(box[2:])
        for axis, at in zip((self._x, self._y), centre(box), strict=True):
            axis.update(at, off)
        for side, length in zip((self._width, self._height), box[2:], strict=True):
            side.update(length, off)

    def distance(self, box: Box) -> float:
        """Return the squared Mahalanobis distance of a box's centre from the expected one."""
        off = _OFF * max(box[2:])
        return sum(
            (at - axis.position) ** 2 / axis.innovation(off)
            for at, axis in zip(centre(box), (self._x, self._y), strict=True)
        )
