"""What each INT8 layer costs at the output, measured on validation images and never twice.

Each layer (or group of layers that change precision together) runs in INT8 alone, all others in
float, and the error that it makes in the output is kept, not just its size. Such errors are small
and very nearly add up, so the divergence of *any* set of INT8 layers can be foretold from as many
evaluations as there are layers. The reverse, leaving one layer in float while all others are
INT8, measures little: every layer behind it rounds anew, and that noise drowns the difference.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray

from edge_fg.errors import CalibrationError
from edge_fg.progress import ProgressCallback, no_progress
from edge_fg_calibration.budget.fidelity import PROBABILITY_FLOOR, OutputKind, compare
from edge_fg_calibration.graph.session import DEFAULT_THREADS, open_session, run_session

SENSITIVITY_IMAGES = 32
"""Validation images that a layer is measured on: divergence is smooth, so few are enough."""

Int8Maker: TypeAlias = Callable[[frozenset[str]], onnx.ModelProto]
"""Makes the INT8 graph in which the nodes with these keys are left in float."""

ShouldStop: TypeAlias = Callable[[], bool]
"""Asked before each batch; True ends the work with the best found so far."""


def never() -> bool:
    """Never stop; the default where nobody asks to."""
    return False


@dataclass(frozen=True)
class ValidationSplit:
    """Images on which candidates are tried, with the float32 model's outputs for them.

    Parameters
    ----------
    batches
        Network inputs, each n x 3 x H x W.
    reference
        Outputs of the float32 model, N x classes, in the order of `batches`.
    indices
        True class of each image, None where unknown.
    input_name, output_name
        Names of the model's image input and class output.
    kind
        Whether the output is logits or probabilities.
    """

    batches: tuple[NDArray[Any], ...]
    reference: NDArray[np.float32]
    indices: tuple[int | None, ...]
    input_name: str
    output_name: str
    kind: OutputKind

    def __len__(self) -> int:
        return len(self.reference)

    @property
    def slices(self) -> tuple[slice, ...]:
        """Which images each batch holds."""
        ends = np.cumsum([len(batch) for batch in self.batches]).tolist()
        return tuple(
            slice(end - len(batch), end) for end, batch in zip(ends, self.batches, strict=True)
        )


def make_validation_split(
    model: onnx.ModelProto,
    batches: Iterable[NDArray[Any]],
    *,
    indices: Sequence[int | None],
    input_name: str,
    output_name: str,
    kind: OutputKind,
    progress: ProgressCallback = no_progress,
) -> ValidationSplit:
    """Run the float32 model on validation images and put the hardest first.

    An image is hard where the model's first two answers are near each other: it is there that
    answers change, so a candidate that changes too many is found out early.

    Parameters
    ----------
    model
        The float32 model.
    batches
        Network inputs, each n x 3 x H x W; all but the last of one size.
    indices
        True class of each image, None where unknown.
    input_name, output_name
        Names of the image input and the class output.
    kind
        Whether the output is logits or probabilities.
    progress
        Told the images done, stage ``validation images``.

    Raises
    ------
    CalibrationError
        There are no images.
    ModelError
        ONNX Runtime refuses the model or fails on a batch.
    """
    session = open_session(model)
    inputs, rows = [], []
    done = 0
    for batch in batches:
        (output,) = run_session(session, [output_name], {input_name: batch})
        inputs.append(batch)
        rows.append(np.asarray(output, np.float32).reshape(len(batch), -1))
        done += len(batch)
        progress("validation images", done, max(done, len(indices)))
    if not inputs:
        raise CalibrationError("there are no validation images to hold the budget against")
    reference = np.concatenate(rows)
    order = np.argsort(answer_gaps(reference, reference, kind), kind="stable")
    images = [image for batch in inputs for image in batch]
    size = len(inputs[0])
    starts = range(0, len(order), size)
    return ValidationSplit(
        batches=tuple(np.stack([images[n] for n in order[at : at + size]]) for at in starts),
        reference=reference[order],
        indices=tuple(indices[one] for one in order),
        input_name=input_name,
        output_name=output_name,
        kind=kind,
    )


def answer_gaps(
    reference: NDArray[np.floating[Any]], candidate: NDArray[np.floating[Any]], kind: OutputKind
) -> NDArray[np.float64]:
    """Return how far the reference's first answer leads in the candidate, N log-odds.

    The lead is over the best of all other classes; below 0 the answer has changed. With one class
    there is no other, and the lead is infinite.
    """
    if reference.shape[1] < 2:
        return np.full(len(reference), np.inf)
    values = log_probabilities(candidate, kind)
    rows = np.arange(len(reference))
    first = reference.argmax(axis=1)
    lead = values[rows, first]
    values[rows, first] = -np.inf
    return np.asarray(lead - values.max(axis=1), dtype=np.float64)


@dataclass
class Evaluator:
    """Runs candidate graphs on the validation images, and none twice on the same ones.

    Outputs are kept by the SHA-256 of the serialised graph, so that two ways to the same graph
    cost one evaluation.

    Parameters
    ----------
    validation
        The images.
    should_stop
        Asked before each batch.
    threads
        Threads inside an operator.

    Attributes
    ----------
    images_run
        Images that a graph was really run on.
    images_cached
        Images whose answer was known already.
    """

    validation: ValidationSplit
    should_stop: ShouldStop = never
    threads: int = DEFAULT_THREADS
    images_run: int = 0
    images_cached: int = 0
    _known: defaultdict[str, dict[int, NDArray[np.float32]]] = field(
        default_factory=lambda: defaultdict(dict)
    )

    def outputs(
        self, model: onnx.ModelProto, which: Sequence[int]
    ) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """Yield the outputs for some of the split's batches, one by one, as they are needed.

        Parameters
        ----------
        model
            The candidate.
        which
            Positions in `ValidationSplit.batches`.

        Raises
        ------
        KeyboardInterrupt
            `should_stop` says so.
        ModelError
            ONNX Runtime refuses the graph or fails on a batch.
        """
        data = model.SerializeToString(deterministic=True)
        known = self._known[hashlib.sha256(data).hexdigest()]
        validation, slices = self.validation, self.validation.slices
        session = None
        for number in which:
            batch = validation.batches[number]
            if number in known:
                self.images_cached += len(batch)
            else:
                if self.should_stop():
                    raise KeyboardInterrupt
                session = session or open_session(data, threads=self.threads)
                feed = {validation.input_name: batch}
                (output,) = run_session(session, [validation.output_name], feed)
                # A copy: the array that ONNX Runtime returns keeps its session's memory alive.
                known[number] = np.array(output, np.float32).reshape(len(batch), -1)
                self.images_run += len(batch)
            yield slices[number], known[number]


@dataclass(frozen=True)
class LayerCost:
    """What one group of layers costs when it alone is INT8.

    Parameters
    ----------
    nodes
        Keys of the group's nodes.
    macs
        Their multiply-accumulates for one image.
    mean_kl
        Mean divergence (nats) from float32 at the output.
    """

    nodes: frozenset[str]
    macs: int
    mean_kl: float


@dataclass(frozen=True)
class Sensitivity:
    """What each group of layers costs, and how their errors add up.

    Parameters
    ----------
    layers
        The groups, in graph order.
    interaction
        Nats, groups x groups, symmetric: the sum over the rows and columns of a set of groups is
        the mean divergence to expect when just that set is INT8. To second order KL(p || q) is
        half the variance under p of the error in the log-odds, so half the covariance of the
        errors of two layers is what both together cost beyond each alone. Covariances are shrunk
        by their uncertainty.
    """

    layers: tuple[LayerCost, ...]
    interaction: NDArray[np.float64]

    def expected_kl(self, kept: Collection[int]) -> float:
        """Return the mean divergence (nats) to expect with some groups left in float."""
        int8 = [one for one in range(len(self.layers)) if one not in kept]
        return max(float(self.interaction[np.ix_(int8, int8)].sum()), 0.0)

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
    images: int = SENSITIVITY_IMAGES,
    progress: ProgressCallback = no_progress,
) -> Sensitivity:
    """Measure what each group of INT8 layers costs.

    Parameters
    ----------
    maker
        Makes the candidate graphs.
    groups
        Keys of the nodes that change precision together (see `Placement.groups`).
    costs_macs
        Multiply-accumulates of each node.
    evaluator
        Runs the candidates; its validation images are sampled evenly from hardest to easiest.
    images
        About how many of them are used.
    progress
        Told the groups done, stage ``sensitivity``.

    Raises
    ------
    KeyboardInterrupt
        The evaluator was told to stop.
    """
    validation = evaluator.validation
    which = spread(validation, images)
    seen = np.concatenate([np.arange(len(validation))[validation.slices[one]] for one in which])
    reference = validation.reference[seen]
    everything = frozenset().union(*groups)
    layers, errors = [], []
    for done, group in enumerate(groups, start=1):
        alone = evaluator.outputs(maker(everything - group), which)
        output = np.concatenate([part for _, part in alone])
        cost = compare(
            reference, output, kind=validation.kind, indices=[None] * len(output)
        ).mean_kl
        layers.append(LayerCost(group, sum(costs_macs.get(one, 0) for one in group), cost))
        errors.append(_weighted_error(reference, output, validation.kind))
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


def log_probabilities(output: NDArray[np.floating[Any]], kind: OutputKind) -> NDArray[np.float64]:
    """Return the natural logarithms of the probabilities that outputs stand for, N x classes."""
    values = output.astype(np.float64)
    if kind == "probabilities":
        values = np.log(np.maximum(values, 0.0) + PROBABILITY_FLOOR)
    values -= values.max(axis=1, keepdims=True)
    values -= np.log(np.exp(values).sum(axis=1, keepdims=True))
    return values


def spread(validation: ValidationSplit, images: int) -> tuple[int, ...]:
    """Return places of batches with about so many images in all, from hardest to easiest."""
    count = len(validation.batches)
    wanted = min(count, max(1, round(images / len(validation.batches[0]))))
    return tuple((2 * step + 1) * count // (2 * wanted) for step in range(wanted))
