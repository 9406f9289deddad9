"""Fidelity against literal sums, and budgets that judge it."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_fg.errors import UsageError
from edge_fg_calibration import Budget, Fidelity, compare, image_records
from edge_fg_calibration.budget.fidelity import PROBABILITY_FLOOR


def softmax(row: list[float]) -> list[float]:
    top = max(row)
    total = sum(math.exp(one - top) for one in row)
    return [math.exp(one - top) / total for one in row]


def literal_kl(p: list[float], q: list[float]) -> float:
    return sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True) if a > 0)


@pytest.fixture(scope="module")
def outputs() -> tuple[np.ndarray, np.ndarray, list[int | None]]:
    random = np.random.default_rng(11)
    reference = (random.normal(size=(60, 9)) * 2).astype(np.float32)
    candidate = (reference + random.normal(size=reference.shape) * 0.7).astype(np.float32)
    indices = [int(random.integers(0, 9)) if n % 3 else None for n in range(60)]
    return reference, candidate, indices


def test_every_figure_against_a_loop(outputs) -> None:
    reference, candidate, indices = outputs
    found = compare(reference, candidate, kind="logits", indices=indices)
    rows = list(zip(reference.tolist(), candidate.tolist(), indices, strict=True))
    kls = [literal_kl(softmax(a), softmax(b)) for a, b, _ in rows]
    known = [(a, b, i) for a, b, i in rows if i is not None]

    def first(row: list[float]) -> int:
        return row.index(max(row))

    def best(row: list[float]) -> list[int]:
        return sorted(range(9), key=lambda n: -row[n])[:5]

    assert found.images == 60
    assert found.agreement == pytest.approx(sum(first(a) == first(b) for a, b, _ in rows) / 60)
    assert found.mean_kl == pytest.approx(sum(kls) / 60, rel=1e-9)
    assert found.max_kl == pytest.approx(max(kls), rel=1e-9)
    assert found.labelled == len(known) == 40
    assert found.agreement_labelled == pytest.approx(
        sum(first(a) == first(b) for a, b, _ in known) / 40
    )
    assert found.top1_reference == pytest.approx(sum(first(a) == i for a, _, i in known) / 40)
    assert found.top1 == pytest.approx(sum(first(b) == i for _, b, i in known) / 40)
    assert found.top5_reference == pytest.approx(sum(i in best(a) for a, _, i in known) / 40)
    assert found.top5 == pytest.approx(sum(i in best(b) for _, b, i in known) / 40)


def test_probabilities_and_logits_agree(outputs) -> None:
    reference, candidate, indices = outputs
    p, q = (np.array([softmax(r) for r in one.tolist()]) for one in (reference, candidate))
    from_logits = compare(reference, candidate, kind="logits", indices=indices)
    found = compare(p, q, kind="probabilities", indices=indices)
    assert found.agreement == from_logits.agreement
    assert found.mean_kl == pytest.approx(from_logits.mean_kl, rel=1e-6)


def test_the_worst_classes_and_the_worst_drop() -> None:
    one_hot = np.eye(4, dtype=np.float32)
    truth = [0] * 6 + [1] * 6 + [2] * 2
    reference = one_hot[truth] * 5
    candidate = reference.copy()
    candidate[:3] = one_hot[3] * 5  # half of class 0
    candidate[6] = one_hot[3] * 5  # one of class 1
    candidate[12:] = one_hot[3] * 5  # all of class 2, but it has two images only
    found = compare(reference, candidate, kind="logits", indices=truth, labels=["a", "b", "c", "d"])
    assert found.worst_classes == (
        {"index": 0, "label": "a", "images": 6, "agreement": 0.5},
        {"index": 1, "label": "b", "images": 6, "agreement": pytest.approx(5 / 6)},
    )
    assert found.worst_class_drop == 0.5
    assert json.loads(json.dumps(found.to_dict()))["worst_classes"][0]["label"] == "a"


def test_without_labels_nothing_is_claimed(outputs) -> None:
    reference, candidate, _ = outputs
    found = compare(reference, candidate, kind="logits", indices=[None] * 60)
    assert found.labelled == 0
    assert found.agreement_labelled is found.top1 is found.top5 is found.worst_class_drop is None


def test_an_underflowed_probability_costs_a_bounded_amount() -> None:
    p = np.array([[0.5, 0.5]], np.float32)
    q = np.array([[1.0, 0.0]], np.float32)
    found = compare(p, q, kind="probabilities", indices=[None])
    expected = 0.5 * math.log(0.5) + 0.5 * math.log(0.5 / PROBABILITY_FLOOR)
    assert found.mean_kl == pytest.approx(expected, rel=1e-6)


@given(
    st.lists(
        st.lists(st.floats(-1e4, 1e4, width=32), min_size=4, max_size=4), min_size=2, max_size=2
    )
)
def test_divergence_is_finite_and_not_negative_and_zero_for_itself(rows) -> None:
    one, two = (np.array([row], np.float32) for row in rows)
    found = compare(one, two, kind="logits", indices=[None])
    assert 0 <= found.mean_kl < math.inf
    assert compare(one, one, kind="logits", indices=[None]).mean_kl == 0.0


def test_records_say_the_same_image_by_image(outputs) -> None:
    reference, candidate, indices = outputs
    records = image_records(reference, candidate, kind="logits", indices=indices)
    whole = compare(reference, candidate, kind="logits", indices=indices)
    assert [one.index for one in records] == indices
    assert np.mean([one.kl for one in records]) == pytest.approx(whole.mean_kl)
    same = [one.top1 == one.reference_top1 for one in records]
    assert np.mean(same) == pytest.approx(whole.agreement)
    row = softmax(candidate[5].tolist())
    assert records[5].confidence == pytest.approx(max(row), rel=1e-6)
    assert records[5].top1 == row.index(max(row))


def test_outputs_that_cannot_be_compared_are_refused(outputs) -> None:
    reference, candidate, indices = outputs
    spoilt = candidate.copy()
    spoilt[3, 2] = np.nan
    for one, two, truth, message in (
        (reference, candidate[:, :5], indices, "N x classes"),
        (reference, candidate, indices[:-1], "59 true classes for 60"),
        (reference, spoilt, indices, "candidate's output is NaN .* first for image 3"),
        (reference, candidate, [9] * 60, "index 9 is not one of 9"),
        (reference[:0], candidate[:0], [], "N x classes"),
    ):
        with pytest.raises(UsageError, match=message):
            compare(one, two, kind="logits", indices=truth)


def fidelity(**changes) -> Fidelity:
    values = {
        "images": 100,
        "agreement": 0.95,
        "mean_kl": 0.02,
        "max_kl": 0.5,
        "labelled": 50,
        "agreement_labelled": 0.98,
        "top1_reference": 0.86,
        "top1": 0.84,
        "top5_reference": 0.96,
        "top5": 0.95,
        "worst_classes": (),
        "worst_class_drop": None,
    }
    return Fidelity(**{**values, **changes})


def test_a_budget_is_read_and_judged() -> None:
    budget = Budget.parse(["agreement=0.97", " mean_kl = 0.01 ", "top1_drop=0.05"])
    assert budget == Budget(agreement=0.97, mean_kl=0.01, top1_drop=0.05)
    failures = budget.failures(fidelity())
    assert failures == [
        "agreement with FP32 is 0.9500, below the budget of 0.97",
        "mean KL divergence is 0.0200, above the budget of 0.01",
    ]
    assert Budget.parse([]).failures(fidelity()) == []
    assert Budget(agreement=0.95, mean_kl=0.02).failures(fidelity()) == []  # limits are inclusive


def test_what_cannot_be_judged_is_not_met() -> None:
    budget = Budget(agreement_labelled=0.9, top1_drop=0.1, class_drop=0.1)
    unknown = fidelity(labelled=0, agreement_labelled=None, top1=None, top1_reference=None)
    failures = budget.failures(unknown)
    assert len(failures) == 3
    assert all("can't be judged" in one for one in failures)
    assert budget.failures(fidelity(worst_class_drop=0.05)) == []


@pytest.mark.parametrize(
    "setting",
    [
        *("agreement", "agreement=", "agreement=high", "agreement=1.2", "agreement=-0.1"),
        *("agreement=nan", "mean_kl=-1", "mean_kl=inf", "mean_kl=nan", "accuracy=0.9", "=1", ""),
    ],
)
def test_a_budget_that_makes_no_sense_is_refused(setting: str) -> None:
    with pytest.raises(UsageError, match="budget"):
        Budget.parse([setting])


def test_a_key_given_twice_is_refused() -> None:
    with pytest.raises(UsageError, match="twice"):
        Budget.parse(["agreement=0.9", "agreement=0.8"])


@given(st.text(max_size=30))
def test_the_parser_never_fails_otherwise(text: str) -> None:
    try:
        budget = Budget.parse([text])
    except UsageError:
        return
    assert any(value is not None for value in vars(budget).values())
