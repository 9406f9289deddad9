"""How sure a budget that holds on a few validation images is to hold on others."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_fg_calibration.budget.budget import Budget, BudgetCheck
from edge_fg_calibration.budget.evaluation import ValidationSplit, answer_gaps
from edge_fg_calibration.budget.fidelity import ImageRecord, divergences

# Share of the multiply-accumulates that the margin leaves in INT8; the budget itself may not.
_DEFAULT_LEAST_INT8 = 0.5

_ONE_SIDED_90 = 1.2816


@dataclass(frozen=True)
class ConfidenceMargin:
    """How sure a budget that holds on validation images is to hold on the hold-out set.

    Agreement is taken as expected over the whole distribution of errors (`expected_agreement`).
    Its standard error is that of the estimate together with the binomial one of counting
    `hold_out_images`; that of mean divergence is that of the two means. The other limits have no
    margin: they rest on too few images.

    Parameters
    ----------
    hold_out_images
        Images that the result will be proven on.
    z
        Standard errors by which a budget is to be kept; the default holds in 9 of 10 cases if
        errors are normal.
    least_int8
        Share (0..1) of multiply-accumulates below which INT8 work is not given up for the margin.
    """

    hold_out_images: int
    z: float = _ONE_SIDED_90
    least_int8: float = _DEFAULT_LEAST_INT8

    def of(self, budget: Budget, validation: ValidationSplit, output: NDArray[Any]) -> float:
        """Return by how many standard errors a candidate keeps the budget; below 0 it does not.

        Parameters
        ----------
        budget
            What must be kept.
        validation
            The validation images.
        output
            The candidate's outputs for all of them, N x classes.

        Returns
        -------
        The least of the margins of the limits that have one; infinite where none has.
        """
        count = max(self.hold_out_images, 1)
        margins = [math.inf]
        if budget.agreement is not None:
            share, error = expected_agreement(validation, output)
            error = math.hypot(error, math.sqrt(share * (1 - share) / count))
            margins.append(_in_errors(share - budget.agreement, error))
        if budget.mean_kl is not None:
            each = divergences(validation.reference, output, validation.kind)
            error = float(each.std()) * math.sqrt(1 / len(each) + 1 / count)
            margins.append(_in_errors(budget.mean_kl - float(each.mean()), error))
        return min(margins)


def _in_errors(distance: float, error: float) -> float:
    if error > 0:
        return distance / error
    return math.inf if distance >= 0 else -math.inf


def expected_agreement(validation: ValidationSplit, output: NDArray[Any]) -> tuple[float, float]:
    """Estimate the agreement on other images, and the estimate's standard error, both 0..1.

    An answer changes where the error that INT8 adds to the first answer's lead exceeds the lead.
    Counting that on few images is coarse: of 100, each is one per cent. So every image's lead
    is paired with every image's error, which is a two-sample U-statistic: its mean is the same
    if lead and error are independent, its variance much smaller.

    References
    ----------
    W. Hoeffding, "A class of statistics with asymptotically normal distribution", Annals of
    Mathematical Statistics 19 (1948), 293-325.
    """
    leads = answer_gaps(validation.reference, validation.reference, validation.kind)
    found = answer_gaps(validation.reference, output, validation.kind)
    if not np.isfinite(leads).all():
        return 1.0, 0.0
    errors = found - leads
    changed = leads[:, None] + errors[None, :] < 0
    by_lead, by_error = changed.mean(axis=1), changed.mean(axis=0)
    variance = (by_lead.var() + by_error.var()) / len(leads)
    return 1.0 - float(changed.mean()), float(np.sqrt(variance))


def is_narrow_miss(check: BudgetCheck, records: Sequence[ImageRecord]) -> bool:
    """Say whether a limit is missed by less than the standard error of what was measured.

    That of `class_drop` is not known: one class has too few images.

    Parameters
    ----------
    check
        The limit, held against what was measured on the images of `records`.
    records
        The comparison image by image.
    """
    if check.met or check.measured is None or check.key not in _BY_IMAGE:
        return False
    labelled = [one for one in records if one.index is not None]
    some = records if check.key in ("agreement", "mean_kl") else labelled
    values = [_BY_IMAGE[check.key](one) for one in some]
    return abs(check.measured - check.required) < float(np.std(values)) / math.sqrt(len(values))


# Of each limit that is a mean over images: what one image adds to it.
_BY_IMAGE: Mapping[str, Callable[[ImageRecord], float]] = {
    "agreement": lambda one: one.top1 == one.reference_top1,
    "agreement_labelled": lambda one: one.top1 == one.reference_top1,
    "mean_kl": lambda one: one.kl,
    "top1_drop": lambda one: (one.reference_top1 == one.index) - (one.top1 == one.index),
}
