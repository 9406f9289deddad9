"""The looks at the hold-out set: a budget that the proof misses is tried again, twice at most.

Each look tells the search one thing only: the budget was missed, narrowly or by far. Which graph
comes next is decided on the validation images: one that should keep the budget by a standard error
more, and then the surest that there is. Every look is recorded, since each is another chance to
keep a budget by luck (see docs/quantization.md).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from edge_fg.bundle import Precision
from edge_fg.errors import BudgetError, DatasetError
from edge_fg_calibration import Budget
from edge_fg_calibration.budget.budget import BudgetCheck
from edge_fg_calibration.budget.confidence_margin import is_narrow_miss
from edge_fg_tools.building.options import BuildOptions
from edge_fg_tools.building.proof import Proof
from edge_fg_tools.building.variants import Variants
from edge_fg_tools.report import HoldOutLook
from edge_fg_tools.report.words import counted

_LOGGER = logging.getLogger("edge_fg")
_MORE_ERRORS = 1.0  # Standard errors that the second look's graph should be surer by
_FIRST, _SURER, _SUREST = "the first", "a standard error more margin", "the surest found"


@dataclass(frozen=True)
class Proven:
    """The variants that are to be shipped, their proof, and each look that led there."""

    variants: Variants
    proof: Proof
    looks: tuple[HoldOutLook, ...]

    @property
    def missed(self) -> tuple[str, ...]:
        """What the last look said of each limit that is not kept; empty when all are."""
        return self.looks[-1].missed


def prove_budget(
    variants: Variants, budget: Budget, prover: Callable[[dict[Precision, bytes]], Proof]
) -> Proven:
    """Prove the variants and, where INT8 misses the budget, surer ones.

    A miss by less than its standard error asks for `_MORE_ERRORS` more margin first, any other for
    the surest graph at once. A graph that the validation images find less sure than the last is
    not looked at. `prover` runs graphs over the hold-out set.
    """
    proof = prover(variants.graphs)
    missed = _missed(budget, proof)
    looks = [_look(_FIRST, variants, proof, list(variants.graphs), budget)]
    surer = variants.surer
    if surer is None or not _may_be_mended(missed):
        return Proven(variants, proof, tuple(looks))
    steps = {math.inf: _SUREST}
    narrow = all(
        is_narrow_miss(one, proof.records[name]) for name in missed for one in missed[name]
    )
    if narrow and math.isfinite(margin := _margin(variants)):
        steps = {max(margin, 0.0) + _MORE_ERRORS: _SURER, **steps}
    tried = {_kept(variants)}
    for z, why in steps.items():
        _LOGGER.warning("the proof misses the budget: %s; trying %s", looks[-1].missed[0], why)
        again = surer(z)
        if _kept(again) not in tried and _margin(again) >= _margin(variants):
            tried.add(_kept(again))
            changed = [name for name in again.graphs if name.startswith("int8")]
            seen = prover({name: again.graphs[name] for name in changed})
            if seen.images != proof.images:
                raise DatasetError("images of the hold-out set can no longer be read: build again")
            variants, proof = again, _joined(proof, seen)
            looks.append(_look(why, variants, proof, changed, budget))
        # Who ended a search waits for no other.
        if not looks[-1].missed or (again.search is not None and again.search.stopped):
            break
    return Proven(variants, proof, tuple(looks))


def budget_error(options: BuildOptions, proven: Proven) -> BudgetError:
    """Return what to raise of a budget that the last look missed; it names the best."""
    where = "no bundle was written"
    if options.keep_best:
        where = f"the best is kept in {options.best_output}"
    reached, search = "", proven.variants.search
    if search is not None and search.best is not None:
        reached = (
            f"; that is the best that was reached, with {search.best.layers}, after "
            f"{counted(len(proven.looks), 'look')} at the hold-out set"
        )
    return BudgetError(
        f"the accuracy budget is not met, {where}: {'; '.join(proven.missed)}{reached} "
        "(calibrate on more or more typical images, or leave that precision out)"
    )


def _may_be_mended(missed: dict[Precision, list[BudgetCheck]]) -> bool:
    """Say whether layers left in float may help: FP16 has none, and labels they don't make."""
    checks = [check for failed in missed.values() for check in failed]
    judged = all(check.measured is not None for check in checks)
    return bool(checks) and judged and all(name.startswith("int8") for name in missed)


def _missed(budget: Budget, proof: Proof) -> dict[Precision, list[BudgetCheck]]:
    checks = {
        name: [one for one in budget.checks(measured) if not one.met]
        for name, measured in proof.fidelity.items()
        if name != "fp32"
    }
    return {name: failed for name, failed in checks.items() if failed}


def _look(
    why: str, variants: Variants, proof: Proof, proven: list[Precision], budget: Budget
) -> HoldOutLook:
    missed = _missed(budget, proof)
    return HoldOutLook(
        why=why,
        kept_float=len(_kept(variants)),
        int8_macs=variants.int8_macs,
        agreement={name: proof.fidelity[name].agreement for name in proven},
        mean_kl={name: proof.fidelity[name].mean_kl for name in proven},
        missed=tuple(f"{name}: {one.failure}" for name in missed for one in missed[name]),
    )


def _kept(variants: Variants) -> frozenset[str]:
    return variants.search.kept_float if variants.search else frozenset()


def _margin(variants: Variants) -> float:
    """Return by how many standard errors the budget should hold, by the validation images."""
    best = variants.search.best if variants.search else None
    return best.margin if best else -math.inf


def _joined(before: Proof, after: Proof) -> Proof:
    return replace(
        after,
        fidelity={**before.fidelity, **after.fidelity},
        records={**before.records, **after.records},
    )
