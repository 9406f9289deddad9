"""The fidelity that a build must keep."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields

from edge_fg.errors import UsageError
from edge_fg_calibration.budget.fidelity import MINIMUM_CLASS_IMAGES, Fidelity


@dataclass(frozen=True)
class Budget:
    """Limits on a variant's fidelity; None sets no limit.

    Parameters
    ----------
    agreement
        Least share (0..1) of images with the same top-1 class as float32.
    agreement_labelled
        The same among images whose class is known.
    mean_kl
        Largest mean divergence from float32, nats.
    top1_drop
        Largest loss of top-1 accuracy (0..1) on labelled images.
    class_drop
        Largest loss of top-1 accuracy (0..1) of any one class.
    """

    agreement: float | None = None
    agreement_labelled: float | None = None
    mean_kl: float | None = None
    top1_drop: float | None = None
    class_drop: float | None = None

    def __post_init__(self) -> None:
        for key, value in asdict(self).items():
            if value is None:
                continue
            if key == "mean_kl" and not (math.isfinite(value) and value >= 0):
                raise UsageError(f"budget mean_kl={value:g}: it must be 0 or more")
            if key != "mean_kl" and not 0 <= value <= 1:
                raise UsageError(f"budget {key}={value:g}: it must lie between 0 and 1")

    @classmethod
    def parse(cls, settings: Sequence[str]) -> Budget:
        """Read settings such as ``agreement=0.97``.

        Raises
        ------
        UsageError
            A setting is not KEY=VALUE, its key is unknown or given twice, or its value is out of
            range.
        """
        keys = [one.name for one in fields(cls)]
        values: dict[str, float] = {}
        for setting in settings:
            key, equals, text = (part.strip() for part in setting.partition("="))
            if not equals or key not in keys:
                raise UsageError(
                    f"budget {setting!r} is not KEY=VALUE with one of the keys {', '.join(keys)}"
                )
            if key in values:
                raise UsageError(f"budget {key} is given twice")
            try:
                values[key] = float(text)
            except ValueError:
                raise UsageError(f"budget {key}={text[:40]}: the value is not a number") from None
        return cls(**values)

    def checks(self, fidelity: Fidelity) -> list[BudgetCheck]:
        """Hold each limit that is set against what was measured."""
        found = []
        for key, (name, is_least, measure, unknown) in _MEASURES.items():
            required = getattr(self, key)
            if required is None:
                continue
            measured = measure(fidelity)
            if measured is None:
                failure = f"{name} can't be judged: {unknown}"
            elif measured < required if is_least else measured > required:
                side = "below" if is_least else "above"
                shown = f"{measured:.4f}" if measured >= 1e-3 else f"{measured:.3g}"
                failure = f"{name} is {shown}, {side} the budget of {required:g}"
            else:
                failure = ""
            found.append(BudgetCheck(key, required, measured, not failure, failure))
        return found

    def failures(self, fidelity: Fidelity) -> list[str]:
        """Return one sentence for each limit that is not met; empty when all are.

        A limit that can't be judged, without labelled images, counts as not met.
        """
        return [check.failure for check in self.checks(fidelity) if not check.met]


@dataclass(frozen=True)
class BudgetCheck:
    """One limit of a budget, held against what was measured.

    Parameters
    ----------
    key
        Which limit, as in ``--budget KEY=VALUE``.
    required
        The limit.
    measured
        What was measured; None where it can't be judged.
    met
        Whether the limit is kept.
    failure
        What to say when it is not kept; empty when it is.
    """

    key: str
    required: float
    measured: float | None
    met: bool
    failure: str = ""


_NO_LABELS = "no image has a label that the model knows"


def _drop(fidelity: Fidelity) -> float | None:
    if fidelity.top1 is None or fidelity.top1_reference is None:
        return None
    return fidelity.top1_reference - fidelity.top1


# Of each limit: its name, whether it is the least allowed, what it is held against, and why that
# may be unknown.
_MEASURES: dict[str, tuple[str, bool, Callable[[Fidelity], float | None], str]] = {
    "agreement": ("agreement with FP32", True, lambda f: f.agreement, ""),
    "agreement_labelled": (
        "agreement on labelled images",
        True,
        lambda f: f.agreement_labelled,
        _NO_LABELS,
    ),
    "mean_kl": ("mean KL divergence", False, lambda f: f.mean_kl, ""),
    "top1_drop": ("loss of top-1 accuracy", False, _drop, _NO_LABELS),
    "class_drop": (
        "loss of the worst class",
        False,
        lambda f: f.worst_class_drop,
        f"no class has {MINIMUM_CLASS_IMAGES} labelled images",
    ),
}
