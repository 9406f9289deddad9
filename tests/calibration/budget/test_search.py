"""The budget search: against brute force, interrupted, impossible, and never twice."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_fg.errors import CalibrationError
from edge_fg_calibration import Budget, compare, image_records, insert_qdq, place, to_fp16
from edge_fg_calibration.budget import evaluation
from edge_fg_calibration.budget.confidence_margin import (
    ConfidenceMargin,
    expected_agreement,
    is_narrow_miss,
)
from edge_fg_calibration.budget.evaluation import (
    Evaluator,
    ValidationSplit,
    answer_gaps,
    make_validation_split,
)
from edge_fg_calibration.budget.search import search_budget
from edge_fg_calibration.budget.sensitivity import measure_sensitivity
from edge_fg_calibration.graph.onnx_graph import Graph, node_key
from edge_fg_calibration.statistics.collection import collect_histograms
from support.inference import predict
from support.properties import examples

CERTAIN = ConfidenceMargin(hold_out_images=10**9, z=0.0, least_int8=0.0)
"""No margin: the validation images alone decide."""


class SearchCase:
    """A network, its INT8 maker and its validation images."""

    def __init__(self, model, images, output="logits", kind="logits", batch=4) -> None:
        self.model, self.made = model, 0
        self.batches = [images[at : at + batch] for at in range(0, len(images), batch)]
        self.placement = place(model, depthwise=True)
        seen = collect_histograms(
            model, self.batches, self.placement.activations, input_name="input"
        )
        self.amax = {name: one.amax for name, one in seen.items()}
        graph = Graph(model)
        self.costs = {node_key(node): graph.macs(node) for node in graph.nodes if graph.macs(node)}
        self.validation = make_validation_split(
            model,
            self.batches,
            indices=[None] * len(images),
            input_name="input",
            output_name=output,
            kind=kind,
        )

    def make(self, kept):
        self.made += 1
        return insert_qdq(self.model, self.placement.without(kept), self.amax)

    def search(self, budget, confidence_margin=CERTAIN, **options):
        groups = self.placement.groups
        return search_budget(
            self.make, groups, self.costs, self.validation, budget, confidence_margin, **options
        )

    def fidelity(self, kept):
        validation = self.validation
        output = predict(
            self.make(frozenset(kept)), validation.batches, "input", validation.output_name
        )
        return compare(
            validation.reference, output, kind=validation.kind, indices=validation.indices
        )


@pytest.fixture(scope="module")
def fragile(make_model, images) -> SearchCase:
    """Four layers, of which `c` reads a tensor whose first channel dwarfs all others."""
    random = np.random.default_rng(11)

    def weight(*shape: int) -> np.ndarray:
        return (random.normal(size=shape) * np.sqrt(2 / np.prod(shape[1:]))).astype(np.float32)

    arrays = {"a.w": weight(16, 3, 3, 3), "b.w": weight(16, 16, 1, 1), "c.w": weight(16, 16, 1, 1)}
    arrays["fc.w"] = 2 * weight(20, 16)
    arrays["b.w"][0] *= 100
    arrays["c.w"][:, 0] /= 100
    pads = {"pads": [1, 1, 1, 1]}
    model = make_model(
        [
            ("Conv", "input a.w", "a", pads),
            ("Relu", "a", "ra"),
            ("Conv", "ra b.w", "b"),
            ("Relu", "b", "rb"),
            ("Conv", "rb c.w", "c"),
            ("Relu", "c", "rc"),
            ("GlobalAveragePool", "rc", "pool"),
            ("Flatten", "pool", "flat"),
            ("Gemm", "flat fc.w", "logits", {"transB": 1}),
        ],
        arrays,
        inputs={"input": ["N", 3, 12, 12]},
        outputs={"logits": ["N", 20]},
    )
    return SearchCase(model, images)


@pytest.fixture(scope="module")
def budget(fragile) -> Budget:
    """A limit that the whole network in INT8 misses by far, and keeps with `c` in float."""
    whole, relieved = fragile.fidelity([]).mean_kl, fragile.fidelity(["c"]).mean_kl
    assert whole > 10 * relieved
    return Budget(mean_kl=3 * relieved)


def test_exactly_the_fragile_layer_is_left_in_float(fragile, budget) -> None:
    found = fragile.search(budget)
    assert found.kept_float == {"c"}
    assert found.met
    assert found.best.fidelity == fragile.fidelity(["c"])
    assert found.reason.startswith("with 1 layer left in float")
    nodes = [next(iter(group)) for group in fragile.placement.groups]
    holding = [
        set(kept)
        for count in range(len(nodes))
        for kept in itertools.combinations(nodes, count)
        if not budget.failures(fragile.fidelity(kept))
    ]
    cheapest = min(holding, key=lambda kept: sum(fragile.costs[node] for node in kept))
    assert found.kept_float == cheapest  # of all 15 subsets
    share = sum(fragile.costs[node] for node in ("a", "b", "logits")) / sum(fragile.costs.values())
    assert found.best.int8_macs == pytest.approx(share)


def test_what_it_tried_is_told_in_order(fragile, budget) -> None:
    found = fragile.search(budget)
    first, *_ = found.tried
    assert (first.kept, first.holds) == (0, False)
    assert first.int8_macs == pytest.approx(1.0)
    assert any(one.kept == 1 and one.holds for one in found.tried)
    assert len(found.tried) == len({(one.kept, one.int8_macs) for one in found.tried})
    again = fragile.search(budget)
    assert (again.tried, again.kept_float) == (found.tried, found.kept_float)


def test_the_fragile_layer_costs_most_and_costs_add_up(fragile) -> None:
    found = measure_sensitivity(
        fragile.make, fragile.placement.groups, fragile.costs, Evaluator(fragile.validation)
    )
    worst = max(found.layers, key=lambda layer: layer.mean_kl)
    assert worst.nodes == {"c"}
    assert worst.macs == fragile.costs["c"]
    assert worst.mean_kl == pytest.approx(fragile.fidelity({"a", "b", "logits"}).mean_kl)
    place_of_c = found.layers.index(worst)
    assert found.order()[0] == place_of_c
    assert sorted(found.order()) == [0, 1, 2, 3]
    np.testing.assert_allclose(found.interaction, found.interaction.T)
    assert found.expected_kl(range(4)) == 0.0
    # To second order only, so the size and not the figure.
    assert found.expected_kl([]) == pytest.approx(fragile.fidelity([]).mean_kl, rel=0.5)
    assert found.expected_kl([place_of_c]) < found.expected_kl([]) / 5


def test_a_budget_that_holds_needs_one_evaluation(fragile) -> None:
    found = fragile.search(Budget(mean_kl=100.0, agreement=0.0))
    assert found.kept_float == frozenset()
    assert (found.met, found.with_margin, found.stopped) == (True, True, False)
    assert len(found.tried) == 1
    assert found.layers == ()
    assert found.images_run == len(fragile.validation)
    assert found.best.int8_macs == pytest.approx(1.0)


def test_an_impossible_budget_is_not_met_and_says_why(fragile) -> None:
    found = fragile.search(Budget(mean_kl=0.0))
    assert not found.met
    assert "the budget is missed on 20 validation images" in found.reason
    # A graph without any INT8 would keep it, but would be none.
    assert 0 < found.best.int8_macs < 1
    assert len(found.kept_float) == 3


def test_a_network_of_one_layer_has_nothing_to_leave(make_model, images) -> None:
    random = np.random.default_rng(0)
    model = make_model(
        [("Flatten", "input", "flat"), ("Gemm", "flat w", "logits", {"transB": 1})],
        {"w": random.normal(size=(20, 432)).astype(np.float32)},
        inputs={"input": ["N", 3, 12, 12]},
        outputs={"logits": ["N", 20]},
    )
    found = SearchCase(model, images).search(Budget(mean_kl=0.0))
    assert (found.met, found.kept_float, len(found.tried)) == (False, frozenset(), 1)


def test_a_hopeless_candidate_is_dropped_early(fragile) -> None:
    found = fragile.search(Budget(mean_kl=1e-12))
    assert all(0 < one.images < len(fragile.validation) for one in found.tried)
    assert all(one.mean_kl > 1e-12 for one in found.tried)


def test_nothing_is_run_twice(fragile) -> None:
    evaluator = Evaluator(fragile.validation)
    model = fragile.make(frozenset())
    one = [output for _, output in evaluator.outputs(model, [0, 1])]
    assert (evaluator.images_run, evaluator.images_cached) == (8, 0)
    # Another object of the same content is the same graph; only batch 2 is new.
    two = [output for _, output in evaluator.outputs(fragile.make(frozenset()), [0, 1, 2])]
    assert (evaluator.images_run, evaluator.images_cached) == (12, 8)
    np.testing.assert_array_equal(np.concatenate(one), np.concatenate(two[:2]))
    list(evaluator.outputs(fragile.make(frozenset({"c"})), [0]))
    assert evaluator.images_run == 16


def test_a_search_runs_each_graph_at_most_once(fragile, budget) -> None:
    fragile.made = 0
    found = fragile.search(budget)
    distinct = len(found.tried) + len(fragile.placement.groups)
    assert fragile.made == distinct
    assert found.images_run + found.images_cached <= distinct * len(fragile.validation)


def interrupt_after(count: int, patch: pytest.MonkeyPatch) -> None:
    """Let Ctrl-C come when `count` batches have been run."""
    run, asked = evaluation.run_session, itertools.count(1)

    def interrupted(*arguments):
        if next(asked) > count:
            raise KeyboardInterrupt
        return run(*arguments)

    patch.setattr(evaluation, "run_session", interrupted)


@pytest.mark.parametrize("after", range(1, 45, 4))
def test_stopping_returns_the_best_so_far(fragile, budget, after, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        interrupt_after(after, patch)
        found = fragile.search(budget)
    assert found.stopped == ("stopped" in found.reason)
    if found.met:
        assert found.kept_float == {"c"} or found.stopped
        assert not budget.failures(fragile.fidelity(found.kept_float))
    else:
        assert found.stopped


def test_ctrl_c_keeps_what_was_found(fragile, budget, monkeypatch) -> None:
    whole = fragile.search(budget)
    enough = next(n for n, one in enumerate(whole.tried, start=1) if one.holds)
    interrupted = []

    def progress(stage: str, done: int, total: int) -> None:
        if stage == "budget search" and done == enough and not interrupted:
            interrupted.append(done)
            raise KeyboardInterrupt

    found = fragile.search(budget, progress=progress)
    assert (found.stopped, found.met) == (True, True)
    assert found.tried == whole.tried[:enough]
    interrupt_after(0, monkeypatch)
    at_once = fragile.search(budget)
    assert (at_once.met, at_once.best, at_once.tried) == (False, None, ())
    assert "stopped" in at_once.reason


def test_progress_never_goes_back_and_ends(fragile, budget) -> None:
    seen: list[tuple[str, int, int]] = []
    fragile.search(budget, progress=lambda *step: seen.append(step))
    for stage in ("sensitivity", "budget search"):
        steps = [(done, total) for name, done, total in seen if name == stage]
        assert [done for done, _ in steps] == sorted(done for done, _ in steps)
        assert steps[-1][0] == steps[-1][1]


def test_a_margin_leaves_more_in_float_as_far_as_it_may_cost(residual_net, images) -> None:
    bench = SearchCase(residual_net, images, output="probs", kind="probabilities")
    limit = Budget(mean_kl=1.01 * bench.fidelity([]).mean_kl)
    bare = bench.search(limit)
    assert bare.kept_float == frozenset()
    careful = bench.search(limit, ConfidenceMargin(20, least_int8=0.0))
    assert careful.with_margin
    assert careful.best.int8_macs < 1
    assert careful.best.fidelity.mean_kl < bare.best.fidelity.mean_kl
    # Where no INT8 work may be given up for it, the budget alone is kept, and that is said.
    stingy = bench.search(limit, ConfidenceMargin(20, least_int8=1.0))
    assert (stingy.met, stingy.with_margin, stingy.kept_float) == (True, False, frozenset())
    assert "margin" in stingy.reason


def test_a_limit_that_validation_images_cannot_judge_is_left_to_the_proof(fragile, budget) -> None:
    found = fragile.search(dataclasses.replace(budget, top1_drop=0.0, class_drop=0.0))
    assert found.met
    assert found.kept_float == {"c"}


def test_the_hardest_images_come_first(fragile) -> None:
    validation = fragile.validation
    gaps = answer_gaps(validation.reference, validation.reference, validation.kind)
    assert (np.diff(gaps) >= 0).all()
    np.testing.assert_allclose(
        predict(fragile.model, validation.batches, "input", "logits"),
        validation.reference,
        atol=1e-4,
    )


def test_a_trial_without_images_is_refused(fragile) -> None:
    with pytest.raises(CalibrationError, match="no validation images"):
        make_validation_split(
            fragile.model,
            [],
            indices=[],
            input_name="input",
            output_name="logits",
            kind="logits",
        )


def trial_of(reference: np.ndarray) -> ValidationSplit:
    return ValidationSplit(
        (), reference.astype(np.float32), (None,) * len(reference), "x", "y", "logits"
    )


@examples(30)
@given(st.integers(0, 10**6), st.floats(0.05, 2.0))
def test_expected_agreement_is_that_of_all_pairs(seed, noise) -> None:
    random = np.random.default_rng(seed)
    leads, errors = random.exponential(2, 12), random.normal(0, noise, 12)
    zero = np.zeros(12)
    share, error = expected_agreement(
        trial_of(np.stack([leads, zero], axis=1)), np.stack([leads + errors, zero], axis=1)
    )
    # In float32, as outputs are.
    leads32 = leads.astype(np.float32)
    pairs = [lead + one >= 0 for lead in leads32 for one in (leads32 + errors) - leads32]
    assert share == pytest.approx(np.mean(pairs), abs=2 / 144)
    assert 0 <= error <= 0.5


def test_expected_agreement_is_nearer_the_truth_than_counting() -> None:
    random = np.random.default_rng(5)
    counted, expected = [], []
    for _ in range(200):
        leads, errors = random.exponential(2, 100), random.normal(0, 0.1, 100)
        zero = np.zeros(100)
        validation = trial_of(np.stack([leads, zero], axis=1))
        output = np.stack([leads + errors, zero], axis=1)
        counted.append(
            compare(validation.reference, output, kind="logits", indices=validation.indices)
        )
        expected.append(expected_agreement(validation, output)[0])
    leads, errors = random.exponential(2, 10**6), random.normal(0, 0.1, 10**6)
    truth = (leads + errors >= 0).mean()
    assert np.mean(expected) == pytest.approx(truth, abs=0.002)
    assert np.std(expected) < 0.8 * np.std([one.agreement for one in counted])


def test_agreement_is_held_against_what_other_images_are_to_expect(fragile) -> None:
    output = predict(fragile.make(frozenset()), fragile.validation.batches, "input", "logits")
    expected, _ = expected_agreement(fragile.validation, output)
    for limit in (expected - 1e-6, expected + 1e-6):
        found = fragile.search(Budget(agreement=limit))
        assert found.tried[0].holds == (expected >= limit)


def test_what_is_shipped_is_what_is_judged(fragile, budget) -> None:
    found = fragile.search(budget, finished=(to_fp16,))
    assert found.met
    validation = fragile.validation
    shipped = to_fp16(fragile.make(found.kept_float))
    output = predict(shipped, validation.batches, "input", "logits")
    judged = compare(validation.reference, output, kind=validation.kind, indices=validation.indices)
    assert found.best.fidelity == judged
    assert found.best.fidelity != fragile.fidelity(found.kept_float)


def test_of_several_graphs_the_furthest_judges(fragile, budget) -> None:
    def spoiled(model):
        """Shipped with the weights of the last layer, or their scales, half as large again."""
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        for one in copy.graph.initializer:
            if one.name.startswith("fc.w") and one.data_type == onnx.TensorProto.FLOAT:
                values = np.float32(1.5) * onnx.numpy_helper.to_array(one)
                one.CopyFrom(onnx.numpy_helper.from_array(values, one.name))
        return copy

    def same(model):
        return model

    good = fragile.search(budget)
    for finished in ((same, spoiled), (spoiled, same)):
        found = fragile.search(budget, finished=finished)
        assert not found.met
        assert found.best.mean_kl > budget.mean_kl > good.best.mean_kl


def test_the_surest_is_found_whatever_it_costs_and_nothing_is_run_again(fragile, budget) -> None:
    evaluator = Evaluator(fragile.validation)
    first = fragile.search(budget, evaluator=evaluator)
    ran = evaluator.images_run
    again = fragile.search(budget, evaluator=evaluator)
    assert evaluator.images_run == ran
    assert again.tried == first.tried
    loose = Budget(mean_kl=100.0, top1_drop=1.0)
    assert fragile.search(loose).kept_float == frozenset()
    for limit in (budget, loose):
        surest = fragile.search(limit, dataclasses.replace(CERTAIN, z=np.inf))
        assert surest.met
        assert not surest.with_margin
        assert surest.best.margin == max(one.margin for one in surest.tried)
        assert surest.best.mean_kl <= first.best.mean_kl
        assert "the surest that was found" in surest.reason
    # No limit that validation images can judge has a margin: the nearest to float32 is the surest.
    unjudged = fragile.search(Budget(top1_drop=0.0), dataclasses.replace(CERTAIN, z=np.inf))
    assert unjudged.best.mean_kl == min(one.mean_kl for one in unjudged.tried)


@pytest.mark.parametrize("key", ["agreement", "agreement_labelled", "mean_kl", "top1_drop"])
def test_a_miss_is_narrow_within_the_standard_error(key) -> None:
    random = np.random.default_rng(4)
    reference = random.normal(size=(400, 5))
    candidate = reference + random.normal(0, 0.4, reference.shape)
    indices = [None if n % 2 else int(row.argmax()) for n, row in enumerate(reference)]
    fidelity = compare(reference, candidate, kind="logits", indices=indices)
    records = image_records(reference, candidate, kind="logits", indices=indices)
    changed = [one.top1 != one.reference_top1 for one in records]
    values = [one.kl for one in records] if key == "mean_kl" else changed
    if key not in ("mean_kl", "agreement"):  # all labels are what the reference answers
        values = changed[::2]
    error = np.std(values) / np.sqrt(len(values))
    (here,) = Budget(**{key: 0.5}).checks(fidelity)
    worse = 1 if key.startswith("agreement") else -1
    for factor, narrow in ((0.9, True), (1.1, False), (-0.1, False)):
        (check,) = Budget(**{key: here.measured + worse * factor * error}).checks(fidelity)
        assert is_narrow_miss(check, records) == narrow, factor
    (unjudged,) = Budget(class_drop=0.0).checks(fidelity)
    assert not is_narrow_miss(unjudged, records)
