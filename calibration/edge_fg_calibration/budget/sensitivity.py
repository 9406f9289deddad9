"""What each INT8 layer costs at the output, measured on validation images and never twice.

Each layer (or group of layers that change precision together) runs in INT8 alone, all others in
float, and the error that it makes in the output is kept, not just its size. Such errors are small
and very nearly add up, so the divergence of *any* set of INT8 layers can be predicted from as many
evaluations as there are layers. The reverse, leaving one layer in float while all others are
INT8, measures little: every layer behind it rounds again, and that noise hides the difference.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray

from edge_fg.progress import ProgressCallback, no_progress
from edge_fg_calibration.budget.evaluation import Evaluator
from edge_fg_calibration.budget.fidelity import OutputKind, divergences, log_probabilities

# Validation images that a layer is measured on: divergence is smooth, so few are enough.
_IMAGES = 32

Int8Maker: TypeAlias = Callable[[frozenset[str]], onnx.ModelProto]
"""Makes the INT8 graph in which the nodes with these keys are left in float."""


@dataclass(frozen=True)
class LayerCost:
    """What one group of layers costs when it alone is INT8."""

    nodes: frozenset[str]  # Keys of the group's nodes
    macs: int  # Their multiply-accumulates for one image
    mean_kl: float  # Mean divergence (nats) from float32 at the output


@dataclass(frozen=True)
class Sensitivity:
    """What each group of layers costs, and how their errors add up."""

    layers: tuple[LayerCost, ...]  # The groups, in graph order
    # Nats, groups x groups, symmetric: the sum over the rows and columns of a set of groups is the
    # mean divergence to expect when just that set is INT8. To second order KL(p || q) is half the
    # variance under p of the error in the log-odds, so half the covariance of the errors of two
    # layers is what both together cost beyond each alone. Covariances are shrunk by their
    # uncertainty.
    interaction: NDArray[np.float64]

    def expected_kl(self, kept: Collection[int]) -> float:
        """Return the mean divergence (nats) to expect with some groups left in float."""
        int8 = [one for one in range(len(self.layers)) if one not in kept]
        return max(float(self.interaction[np.ix_(int8, int8)].sum()), 0.0)

    def nodes(self, groups: Iterable[int]) -> frozenset[str]:
        """Return the keys of the nodes of some groups."""
        return frozenset().union(*(self.layers[one].nodes for one in groups))

    def order(self) -> tuple[int, ...]:
        """Return the groups in the order in which leaving them in float pays most.

        Each next one wins the most expected divergence for each multiply-accumulate given up,
        those before it being in float already.
        """
        left = list(range(len(self.layers)))
        cost = np.array([max(layer.macs, 1) for layer in self.layers], dtype=np.float64)
        shared = self.interaction.sum(axis=1)
        found = []
        while left:
            won = (2 * shared[left] - np.diag(self.interaction)[left]) / cost[left]
            # Ties go to the first, so that the order is the same on every machine.
            best = left[int(np.argmax(won))]
            found.append(best)
            left.remove(best)
            shared = shared - self.interaction[best]
        return tuple(found)


def measure_sensitivity(
    maker: Int8Maker,
    groups: Sequence[frozenset[str]],
    costs_macs: Mapping[str, int],
    evaluator: Evaluator,
    *,
    progress: ProgressCallback = no_progress,
) -> Sensitivity:
    """Measure what each group of INT8 layers costs, on some of the validation images.

    Groups hold the keys of nodes that change precision together (see `Placement.groups`),
    `costs_macs` each node's multiply-accumulates. The stage of `progress` is ``sensitivity``.
    """
    kind = evaluator.validation.kind
    everything = frozenset().union(*groups)
    layers, errors = [], []
    for done, group in enumerate(groups, start=1):
        reference, output = evaluator.outputs_of_both(maker(everything - group), _IMAGES)
        cost = float(divergences(reference, output, kind).mean())
        layers.append(LayerCost(group, sum(costs_macs.get(one, 0) for one in group), cost))
        errors.append(_weighted_error(reference, output, kind))
        progress("sensitivity", done, len(groups))
    return Sensitivity(tuple(layers), _interaction(np.stack(errors)))


def _interaction(errors: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return half the mean covariance of errors, groups x images x classes, shrunk.

    An order by divergence won would go for the covariances that came out large by chance on few
    images. So each pair's is shrunk towards 0 by the share of it that its standard error
    explains (the positive-part estimator of W. James and C. Stein, 1961).
    """
    images = errors.shape[1]
    by_image = np.einsum("inc,jnc->ijn", errors, errors).astype(np.float64) / 2
    mean = by_image.mean(axis=2)
    noise = by_image.var(axis=2) / max(images - 1, 1)
    signal = np.maximum(mean**2, np.finfo(np.float64).tiny)
    shrunk = mean * np.maximum(0.0, 1.0 - noise / signal)
    np.fill_diagonal(shrunk, np.diag(mean))
    return np.asarray(shrunk, dtype=np.float64)


def _weighted_error(
    reference: NDArray[np.float32], output: NDArray[np.float32], kind: OutputKind
) -> NDArray[np.float32]:
    """Return log-odds errors such that the product of two of them is a covariance under p."""
    expected, found = log_probabilities(reference, kind), log_probabilities(output, kind)
    p = np.exp(expected)
    error = found - expected
    error -= (p * error).sum(axis=1, keepdims=True)
    return np.asarray(error * np.sqrt(p), dtype=np.float32)
