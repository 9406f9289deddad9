"""The validation split, and running candidate graphs on it, never twice on the same images."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edge_fg.errors import CalibrationError
from edge_fg.progress import ProgressCallback, no_progress
from edge_fg_calibration.budget.fidelity import OutputKind, log_probabilities
from edge_fg_calibration.graph.observation import check_finite
from edge_fg_calibration.graph.session import open_session, run_session


@dataclass(frozen=True)
class ValidationSplit:
    """Images on which candidates are tried, with the float32 model's outputs for them."""

    batches: tuple[NDArray[Any], ...]  # Network inputs, each n x 3 x H x W
    # Outputs of the float32 model, N x classes, in the order of `batches`.
    reference: NDArray[np.float32]
    indices: tuple[int | None, ...]  # True class of each image, None where unknown
    # Names of the model's image input and class output.
    input_name: str
    output_name: str
    kind: OutputKind  # Whether the output is logits or probabilities

    def __len__(self) -> int:
        return len(self.reference)


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

    Batches are network inputs, n x 3 x H x W, all but the last of one size. The stage of
    `progress` is ``validation images``. Raises `CalibrationError` where there are no images and
    `ModelError` where ONNX Runtime refuses the model or fails on a batch, or an output is
    NaN or infinite.
    """
    session = open_session(model.SerializeToString())
    size, rows = 0, []
    images: list[NDArray[Any]] = []
    for batch in batches:
        (output,) = run_session(session, [output_name], {input_name: batch})
        rows.append(np.asarray(output, np.float32).reshape(len(batch), -1))
        images.extend(batch)
        check_finite(
            rows[-1],
            output_name,
            model=model,
            batch=batch,
            input_name=input_name,
            images="validation images",
        )
        size = size or len(batch)
        progress("validation images", len(images), max(len(images), len(indices)))
    if not images:
        raise CalibrationError("there are no validation images to hold the budget against")
    reference = np.concatenate(rows)
    order = np.argsort(answer_gaps(reference, reference, kind), kind="stable")
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
    """

    validation: ValidationSplit
    images_run: int = 0  # Images that a graph was really run on
    images_cached: int = 0  # Images whose answer was known already
    _known: defaultdict[str, dict[int, NDArray[np.float32]]] = field(
        default_factory=lambda: defaultdict(dict)
    )

    def outputs(
        self, model: onnx.ModelProto, which: Sequence[int]
    ) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """Yield the outputs for the batches at some places, one by one, as they are needed.

        Raises `ModelError` where ONNX Runtime refuses the graph or fails on a batch.
        """
        data = model.SerializeToString(deterministic=True)
        known = self._known[hashlib.sha256(data).hexdigest()]
        validation, session = self.validation, None
        ends = np.cumsum([len(batch) for batch in validation.batches]).tolist()
        for number in which:
            batch = validation.batches[number]
            if number in known:
                self.images_cached += len(batch)
            else:
                session = session or open_session(data)
                feed = {validation.input_name: batch}
                (output,) = run_session(session, [validation.output_name], feed)
                # A copy: the array that ONNX Runtime returns keeps its session's memory alive.
                known[number] = np.array(output, np.float32).reshape(len(batch), -1)
                self.images_run += len(batch)
            yield slice(ends[number] - len(batch), ends[number]), known[number]

    def outputs_of_both(
        self, model: onnx.ModelProto, images: int | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the float32 model's outputs and the candidate's, n x classes each.

        They are of about so many images, evenly from the hardest to the easiest; of all by default.
        """
        batches = self.validation.batches
        count = wanted = len(batches)
        if images is not None:
            wanted = min(count, max(1, round(images / len(batches[0]))))
        which = [(2 * step + 1) * count // (2 * wanted) for step in range(wanted)]
        parts, outputs = zip(*self.outputs(model, which), strict=True)
        reference = np.concatenate([self.validation.reference[part] for part in parts])
        return reference, np.concatenate(outputs)
