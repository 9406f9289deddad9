"""Sharing operations out among kernels, by the rules of a library."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from edge_fg_calibration.int8.device_cost.network import Network, Operation


@dataclass(frozen=True)
class Candidate:
    """A step that a kernel may take in: pointwise operations that alone use up its result."""

    network: Network
    kernel: tuple[Operation, ...]
    step: tuple[Operation, ...]

    @property
    def main(self) -> Operation:
        """The operation that the kernel was begun with."""
        return self.kernel[0]

    @property
    def operators(self) -> list[str]:
        """The operators of the step."""
        return [one.operator for one in self.step]

    @property
    def from_elsewhere(self) -> set[str]:
        """What the step reads that neither it nor the kernel makes."""
        made = {name for one in (*self.kernel, *self.step) for name in one.writes}
        return {name for one in self.step for name in one.reads} - made


Rule: TypeAlias = Callable[[Candidate], bool]


@dataclass
class Fusion:
    """Kernels in the order in which they run, each a list of operations."""

    network: Network
    kernels: list[list[Operation]] = field(default_factory=list)
    kernel_of: dict[str, int] = field(default_factory=dict)  # By the operation's name

    def add(self, operation: Operation, to: int | None = None) -> int:
        """Put an operation into a kernel, a new one by default, and return which."""
        if to is None:
            to = len(self.kernels)
            self.kernels.append([])
        self.kernels[to].append(operation)
        self.kernel_of[operation.name] = to
        return to

    def pull(self, operation: Operation, movable: Callable[[Operation], bool]) -> None:
        """Move kernels into that of an operation which alone reads what they make."""
        here = self.kernel_of[operation.name]
        for maker in filter(None, map(self.network.makers.get, operation.reads)):
            kernel = self.kernels[self.kernel_of[maker.name]]
            names = {one.name for one in kernel} | {operation.name}
            made = [name for one in kernel for name in one.writes]
            if kernel is self.kernels[here] or not all(map(movable, kernel)):
                continue
            if not self.network.leaving(made, names):
                self.kernels[here][:0] = kernel
                self.kernel_of.update((one.name, here) for one in kernel)
                kernel.clear()

    def latest(self, operation: Operation) -> int | None:
        """Return the last of the kernels that make what an operation reads.

        Only that one can take it in: with an earlier one it would run too early.
        """
        makers = [self.network.makers.get(name) for name in operation.reads]
        return max((self.kernel_of[one.name] for one in makers if one is not None), default=None)

    def grow(self, operation: Operation, *rules: Rule) -> None:
        """Begin a kernel with an operation, and add the steps behind it that a rule accepts."""
        kernel = self.kernels[self.add(operation)]
        while (step := self._step_behind(kernel)) is not None:
            candidate = Candidate(self.network, tuple(kernel), step)
            if not any(rule(candidate) for rule in rules):
                return
            for one in step:
                self.add(one, len(self.kernels) - 1)

    def _step_behind(self, kernel: list[Operation]) -> tuple[Operation, ...] | None:
        """Return the fewest pointwise operations that use up a kernel's result.

        One for a ReLU, two for a SiLU (Sigmoid and Mul). Nothing where another kernel reads the
        result, too, or what else the operations read is not made yet.
        """
        inside = [kernel[-1].writes[0]]
        names = {one.name for one in kernel}
        step: list[Operation] = []
        while True:
            ready = (
                one
                for name in inside
                for one in self.network.readers.get(name, ())
                if one.name not in names and all(self._is_made(r, inside) for r in one.reads)
            )
            found = next(ready, None)
            if found is None or not found.is_pointwise:
                return None
            step.append(found)
            names.add(found.name)
            inside.extend(found.writes)
            if self.network.leaving(inside, names) == {found.writes[0]}:
                return tuple(step)

    def _is_made(self, name: str, inside: list[str]) -> bool:
        maker = self.network.makers.get(name)
        return maker is None or name in inside or maker.name in self.kernel_of
