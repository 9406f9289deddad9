"""The build report: what it says, what it refuses to say, and that it can't be abused."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import math
import re
import sys
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from edge_fg.errors import ImageError, MissingDependencyError
from edge_fg.files import write_atomically
from edge_fg_calibration.budget.budget import BudgetCheck
from edge_fg_calibration.budget.fidelity import compare
from edge_fg_calibration.budget.results import Candidate, SearchedLayer, SearchResult
from edge_fg_calibration.corrections.results import CorrectionTrial
from edge_fg_tools.report import (
    MAX_CHANGED,
    Answer,
    CalibrationFacts,
    ChangedAnswer,
    CostFacts,
    CostlyKernel,
    DeviceLatency,
    ModelFacts,
    PlanFacts,
    ProofFacts,
    Report,
    TensorRange,
    VariantReport,
    charts,
    downsample,
    report_html,
    report_json,
    thumbnail,
    words,
)
from edge_fg_tools.report.verdict import ClassAgreement, concerns, judge
from support.properties import examples

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>&amp;{{ 7 * 7 }}\x00\x1b\udcff"
VOID = {"meta", "img", "br", "link", "input", "hr"}
INSIDE_SVG = {"path", "circle", "line", "rect"}


class Page(HTMLParser):
    """The page as a browser's parser sees it: elements, text by class, and balance."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).replace("\u00a0", " ").split())

    def count(self, tag: str, name: str | None = None) -> int:
        return sum(
            found == tag and (name is None or name in (attrs.get("class") or "").split())
            for found, attrs in self.elements
        )


def encoded(shade: int = 90) -> bytes:
    return thumbnail(np.full((30, 40, 3), shade, np.uint8), size=16)


def changed(name: str = "wren.jpg", truth: str | None = "Wren", **values: object) -> ChangedAnswer:
    item = ChangedAnswer(name, encoded(), truth, Answer("Wren", 0.62), Answer("Robin", 0.41), False)
    return dataclasses.replace(item, **values)


def fidelity(images: int = 1000, same: int = 963, **values: object) -> dict[str, object]:
    return {
        "images": images,
        "agreement": same / images,
        "mean_kl": 0.0123,
        "max_kl": 0.4,
        "labelled": 600,
        "agreement_labelled": 0.97,
        "top1_reference": 0.86,
        "top1": 0.855,
        "top5_reference": 0.96,
        "top5": 0.95,
        "worst_classes": [
            {"index": 3, "label": "Marsh Tit", "images": 6, "agreement": 0.5},
            {"index": 9, "label": "Willow Tit", "images": 5, "agreement": 0.2},
        ],
        **values,
    }


def int8(**values: object) -> VariantReport:
    variant = VariantReport(
        name="int8",
        file_bytes=3_900_000,
        fidelity=fidelity(),
        int8_macs=0.97,
        plan=PlanFacts("tensorrt-rtx", 4_100_000, 12.3, "1.7"),
        changed=(changed(), changed("tit.jpg", None, siblings=True)),
        changed_total=37,
        scatter=((0.9, 0.88, True), (0.5, 0.2, False), (0.7, 0.75, True)),
        sibling_confusions_added=2,
        budget=(BudgetCheck("agreement", 0.95, 0.963, True),),
    )
    return dataclasses.replace(variant, **values)


def strip(**values: object) -> TensorRange:
    item = TensorRange("relu_3", "Conv_3", "Conv", 4.0, 6.0, 0.02, "entropy", (50, 9, 0, 1), 6.0)
    return dataclasses.replace(item, **values)


def report(*variants: VariantReport, **values: object) -> Report:
    whole = Report(
        name="birds",
        created="2026-11-20T23:40:00+00:00",
        edge_fg_version="0.1.0",
        model=ModelFacts(
            "birds.onnx", "ab" * 32, "x: N x 3 x 224 x 224", 965, "logits", 3540000, 3
        ),
        calibration=CalibrationFacts(
            "garden",
            500,
            (("torn.jpg", "truncated"),),
            "cd" * 32,
            "entropy",
            {"max": {"mean_kl": 0.04, "agreement": 0.93}, "entropy": {"mean_kl": 0.01}},
        ),
        proof=ProofFacts(1000, 600, "garden"),
        variants=variants or (int8(),),
        ranges=(strip(), strip(tensor="add_1", clipped_share=0.0, amax=6.0)),
        placement_skipped=(("Softmax_9", "Softmax", "its output spans too many magnitudes"),),
        provenance={"python": "3.11"},
    )
    return dataclasses.replace(whole, **values)


def candidate(kept: int, **values: object) -> Candidate:
    """A candidate that was dropped early, unless `values` say otherwise."""
    dropped = Candidate(
        kept_float=frozenset(f"node {n}" for n in range(kept)),
        int8_macs=0.97,
        agreement=0.96,
        mean_kl=0.006,
        images=64,
        holds=False,
        margin=-math.inf,
        with_margin=False,
    )
    return dataclasses.replace(dropped, **values)


def searched(*, expected: float | None = 0.991, **values: object) -> SearchResult:
    same = np.eye(4, dtype=np.float32)
    measured = compare(same, same, kind="probabilities", indices=[None] * 4)
    taken = candidate(
        1,
        int8_macs=0.93,
        agreement=0.992,
        mean_kl=0.002,
        images=256,
        holds=True,
        margin=2.0,
        with_margin=True,
        fidelity=measured,
        expected_agreement=expected,
    )
    found = SearchResult(
        reason="2 layers left in float keep the budget",
        tried=(candidate(0), taken),
        taken=1,
        layers=(
            SearchedLayer(("stem",), 0.04, 0.004, True),
            SearchedLayer(("left", "right"), 0.2, 0.001, False),
            SearchedLayer(("head",), 0.01, 0.0, False),
        ),
        validation_images=256,
        stopped=False,
        images_run=320,
        images_cached=0,
    )
    return dataclasses.replace(found, **values)


def correction(**values: object) -> CorrectionTrial:
    facts = CorrectionTrial(
        "bias correction", True, 0.0312, 0.0187, 0.91, 0.953, "softened divergence -40 %"
    )
    return dataclasses.replace(facts, **values)


def cost(library: str = "tensorrt", **values: object) -> CostFacts:
    facts = CostFacts(
        library=library,
        kernels=57,
        activation_bytes=13_720_000,
        weight_bytes=3_550_000,
        macs={"int8": 280_000_000, "fp32": 21_000_000},
        latencies=(
            DeviceLatency("Jetson AGX Orin", 0.000117, 0.000433, "faster"),
            DeviceLatency("Jetson Orin Nano", 0.0012, 0.0144, "undecided"),
        ),
        costliest=(CostlyKernel(("conv_3", "relu_3"), ("Conv", "Relu"), 0.125),),
    )
    return dataclasses.replace(facts, **values)


def hostile() -> Report:
    variant = int8(
        name=HOSTILE,
        costs=(
            cost(
                HOSTILE,
                latencies=(DeviceLatency(HOSTILE, 0.1, 0.2, HOSTILE),),
                costliest=(CostlyKernel((HOSTILE,), (HOSTILE,), 0.5),),
            ),
        ),
        fidelity=fidelity(
            worst_classes=[{"index": 0, "label": HOSTILE, "images": 6, "agreement": 0.1}]
        ),
        plan=PlanFacts(HOSTILE, 1, 1.0, HOSTILE),
        changed=(
            ChangedAnswer(HOSTILE, b"", HOSTILE, Answer(HOSTILE, 0.5), Answer(HOSTILE, 1), True),
        ),
        budget=(BudgetCheck(HOSTILE, 0.5, 0.1, False),),
    )
    return report(
        variant,
        name=HOSTILE,
        created=HOSTILE,
        edge_fg_version=HOSTILE,
        model=ModelFacts(HOSTILE, HOSTILE, HOSTILE, 1, HOSTILE, 1, None, (HOSTILE,)),
        calibration=CalibrationFacts(
            HOSTILE, 1, ((HOSTILE, HOSTILE),), HOSTILE, HOSTILE, {HOSTILE: {"mean_kl": 1.0}}
        ),
        proof=ProofFacts(1000, 10, HOSTILE),
        ranges=(strip(tensor=HOSTILE, node=HOSTILE, op=HOSTILE, method=HOSTILE),),
        placement_skipped=((HOSTILE, HOSTILE, HOSTILE),),
        provenance={HOSTILE: HOSTILE},
        search=searched(
            reason=HOSTILE, layers=(SearchedLayer((HOSTILE, HOSTILE), 0.5, 0.1, True),)
        ),
        corrections=(correction(name=HOSTILE, reason=HOSTILE),),
    )


def svgs(html: str) -> list[ET.Element]:
    return [ET.fromstring(text) for text in re.findall(r"<svg.*?</svg>", html, re.DOTALL)]


def test_the_page_says_how_many_answers_stayed_the_same() -> None:
    page = Page(report_html(report()))
    assert "INT8 gives the same answer as FP32 on 963 of 1,000 hold-out images." in page.text
    assert "It names 513 of 600 labelled images correctly; FP32 names 516." in page.text
    assert "94.9 % to 97.3 %" in page.text
    assert "Built on 20 November 2026, 23:40 UTC with edge_fg 0.1.0" in page.text
    assert "Compiled for tensorrt-rtx 1.7 in 12.3 s: a plan of 4.1 MB." in page.text
    assert page.open == []


def test_the_page_asks_for_nothing_outside_itself() -> None:
    html = report_html(report())
    assert "http://" not in html
    assert "https://" not in html
    assert "url(" not in html
    assert "@import" not in html
    page = Page(html)
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.elements}
    for _, attributes in page.elements:
        assert not [key for key in attributes if key.startswith("on")]
        assert (attributes.get("src") or "data:image/jpeg;").startswith("data:image/jpeg;")
        assert (attributes.get("href") or "#").startswith("#")
    assert page.count("img") == 2


def test_links_inside_the_page_lead_somewhere() -> None:
    page = Page(report_html(report(int8(), int8(name="fp16"))))
    targets = [attributes["id"] for _, attributes in page.elements if attributes.get("id")]
    links = {(attributes["href"] or "")[1:] for tag, attributes in page.elements if tag == "a"}
    assert len(targets) == len(set(targets))
    assert links <= set(targets)
    assert {"variant-1", "variant-2", "expert"} <= links


def test_the_page_says_what_variants_cost_on_devices() -> None:
    half = cost(latencies=(DeviceLatency("Jetson AGX Orin", 0.0002, 0.000567, None),))
    page = Page(report_html(report(int8(costs=(cost(), cost("tensorrt-rtx"))))))
    assert page.text.count("57 13.7 MB 3.5 MB 280 million INT8, 21 million FP32") == 2
    assert "0.12 to 0.43 ms faster than FP16 1.2 to 14 ms undecided" in page.text
    assert "The layers that cost most on Jetson AGX Orin" in page.text
    assert "conv_3, relu_3 Conv, Relu 12.5 %" in page.text
    assert "TensorRT-RTX Variant Kernels" in page.text
    alone = Page(report_html(report(int8(name="fp16", costs=(half,)))))
    assert "0.2 to 0.57 ms The layers" in alone.text
    assert "What each variant costs" not in Page(report_html(report())).text


def test_images_in_the_page_are_those_given() -> None:
    page = Page(report_html(report()))
    sources = [attributes["src"] or "" for tag, attributes in page.elements if tag == "img"]
    assert [base64.b64decode(source.partition(",")[2]) for source in sources] == [encoded()] * 2


def test_hostile_names_stay_text(tmp_path) -> None:
    html = report_html(hostile())
    page = Page(html)
    kinds = {tag for tag, _ in page.elements}
    assert "script" not in kinds
    assert page.count("img") == 0
    assert not [
        key for _, attributes in page.elements for key in attributes if key.startswith("on")
    ]
    assert page.open == []
    shown = words.xml_text(HOSTILE)
    assert page.text.count("<script>alert(1)</script>") >= 20
    assert shown in page.text
    assert "{{ 7 * 7 }}" in page.text
    write_atomically(tmp_path / "report.html", html)
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == html


def test_hostile_names_survive_json_as_text() -> None:
    text = json.dumps(report_json(hostile()), allow_nan=False, ensure_ascii=False)
    assert json.loads(text.encode("utf-8"))["name"] == words.xml_text(HOSTILE)


def test_every_chart_of_a_page_is_well_formed() -> None:
    for whole in (report(), hostile()):
        html = report_html(whole)
        found = svgs(html)
        drawn = 3 + len(whole.ranges) + (whole.search is not None)
        assert len(found) == drawn == html.count("<svg")
        for svg in found:
            assert svg.tag == "svg"
            assert svg.findtext("title")


def test_json_has_stable_keys_and_no_images() -> None:
    whole = report()
    plain = report_json(whole)
    assert list(plain) == [
        "schema", "name", "created", "edge_fg_version", "model", "calibration", "proof", "variants",
        "ranges", "placement_skipped", "provenance", "search", "repairs", "concerns",
    ]  # fmt: skip
    variant = plain["variants"][0]
    assert list(variant) == [
        "name", "file_bytes", "fidelity", "int8_macs", "plan", "changed", "changed_total",
        "scatter", "sibling_confusions_added", "looks", "budget", "costs", "agreement_interval",
        "verdict",
    ]  # fmt: skip
    assert list(variant["changed"][0]) == ["file", "truth", "reference", "candidate", "siblings"]
    assert variant["fidelity"]["agreement"] == 0.963
    assert variant["scatter"][1] == [0.5, 0.2, False]
    assert variant["agreement_interval"] == pytest.approx([0.9494, 0.9730], abs=5e-4)
    assert plain["calibration"]["skipped"] == [["torn.jpg", "truncated"]]
    assert plain["ranges"][0]["histogram"] == [50, 9, 0, 1]


def test_json_round_trips_without_nan() -> None:
    wild = int8(
        fidelity=fidelity(
            mean_kl=math.nan, max_kl=math.inf, top1=np.float32(0.5), images=np.int64(8)
        ),
        int8_macs=float("nan"),
        scatter=((math.nan, 0.5, True), (np.float32(0.25), np.float64(0.5), np.bool_(False))),
    )
    whole = report(
        wild, ranges=(strip(amax=math.inf),), provenance={"array": np.arange(3), "at": 1 + 2j}
    )
    plain = report_json(whole)
    again = json.loads(json.dumps(plain, allow_nan=False))
    assert again == plain
    variant = again["variants"][0]
    assert variant["fidelity"]["mean_kl"] is None
    assert variant["fidelity"]["max_kl"] is None
    assert variant["fidelity"]["top1"] == 0.5
    assert variant["fidelity"]["images"] == 8
    assert variant["int8_macs"] is None
    assert variant["scatter"] == [[None, 0.5, True], [0.25, 0.5, False]]
    assert again["ranges"][0]["amax"] is None
    assert again["provenance"]["array"] == [0, 1, 2]
    page = Page(report_html(whole))
    assert "nan" not in page.text.lower().split()
    assert "inf" not in page.text.lower().split()


def test_counts_on_the_page_are_those_of_the_report() -> None:
    cards = tuple(changed(f"bird_{index}.jpg") for index in range(MAX_CHANGED))
    whole = report(
        int8(changed=cards, changed_total=37), int8(name="int8-fp16", changed=(), changed_total=0)
    )
    page = Page(report_html(whole))
    assert page.count("article", "answer-card") == MAX_CHANGED
    assert page.count("article", "verdict") == 2
    assert "The 24 most changed of 37 images" in page.text
    assert "Images skipped (1)" in page.text
    assert "Ranges of 2 tensors" in page.text
    assert "Nodes left in floating point (1)" in page.text


def test_a_card_shows_who_is_right_and_marks_siblings() -> None:
    whole = report(int8(changed=(changed(),), changed_total=1))
    page = Page(report_html(whole))
    assert "FP32 · ✓ right 62 % Wren INT8 · ✗ wrong 41 % Robin Truth: Wren wren.jpg" in page.text
    assert "The only image" in page.text
    assert page.count("span", "sibling") == 0
    unknown = report(int8(changed=(changed(truth=None, siblings=True),), changed_total=1))
    page = Page(report_html(unknown))
    assert page.count("span", "right") == page.count("span", "wrong") - 1 == 0  # the range's mark
    assert "Truth not known siblings: same genus" in page.text


def test_nothing_changed_and_no_labels_is_said_plainly() -> None:
    blank = dict.fromkeys(("top1", "top1_reference", "top5", "top5_reference"))
    same = fidelity(1000, 1000, labelled=0, worst_classes=[], **blank)
    quiet = int8(
        fidelity=same,
        changed=(),
        changed_total=0,
        scatter=(),
        budget=(),
        sibling_confusions_added=0,
    )
    whole = report(quiet, proof=ProofFacts(1000, 0, "garden"))
    page = Page(report_html(whole))
    assert "INT8 gives the same answer as FP32 on 1,000 of 1,000 hold-out images" in page.text
    assert "Changed answers None." in page.text
    assert "No hold-out image is labelled" in page.text
    assert "labelled images correctly" not in page.text
    assert page.count("article", "answer-card") == 0
    assert judge(quiet).level == "fine"


def test_without_int8_there_is_no_calibration_to_show() -> None:
    fp32 = VariantReport("fp32", 14_000_000, fidelity(1000, 1000, top1=0.86, worst_classes=[]))
    whole = report(fp32, calibration=None, ranges=(), placement_skipped=(), provenance={})
    page = Page(report_html(whole))
    assert "FP32 is the reference" in page.text
    assert "No variant needed calibration." in page.text
    assert "Ranges of" not in page.text
    assert "It names 516 of 600 labelled images correctly." in page.text
    assert report_json(whole)["calibration"] is None
    assert judge(fp32).level == "reference"


def test_an_empty_bundle_and_an_uncompared_variant_make_a_page() -> None:
    bare = Page(report_html(dataclasses.replace(report(), variants=())))
    assert "The bundle holds no variant." in bare.text
    lone = VariantReport("int8", 10, {})
    whole = report(lone, proof=ProofFacts(0, 0, ""))
    text = Page(report_html(whole)).text
    assert "INT8 was not compared with FP32" in text
    assert "Changed answers Nothing was compared." in text
    assert any("The hold-out set is empty" in sentence for sentence in concerns(whole))


@pytest.mark.parametrize(
    ("values", "level", "mark"),
    [
        ({"fidelity": fidelity(1000, 995)}, "fine", "Agrees with FP32"),
        ({"fidelity": fidelity(50, 50)}, "look", "Too few images to be sure"),
        ({"fidelity": fidelity(1000, 963)}, "look", "Close to FP32"),
        ({"fidelity": fidelity(1000, 900)}, "worry", "Differs from FP32"),
        ({"fidelity": fidelity(1000, 995, top1=0.84)}, "look", "Slightly less accurate"),
        ({"fidelity": fidelity(1000, 995, top1=0.8)}, "worry", "Less accurate than FP32"),
        ({"budget": (BudgetCheck("agreement", 0.99, 0.963, False),)}, "worry", "Budget not met"),
    ],
)
def test_the_verdict_follows_the_measurements(values, level, mark) -> None:
    variant = int8(**values)
    verdict = judge(variant)
    assert (verdict.level, verdict.mark) == (level, mark)
    page = Page(report_html(report(variant)))
    assert page.count("article", level) == 1
    assert mark in page.text


def test_what_to_worry_about_is_listed() -> None:
    worn = int8(int8_macs=0.31, budget=(BudgetCheck("agreement", 0.99, 0.963, False),))
    whole = report(
        worn,
        proof=ProofFacts(40, 0, "garden"),
        calibration=CalibrationFacts(
            "garden", 12, (("a.jpg", "torn"), ("b.jpg", "torn")), "", "max"
        ),
        model=dataclasses.replace(report().model, warnings=("outputs are softmaxed",)),
    )
    told = [sentence.replace("\u00a0", " ") for sentence in concerns(whole)]
    assert told == [
        "INT8 misses its budget: agreement with FP32 should be at least 0.99 and is 0.963.",
        "INT8 changes the answer for Willow Tit most: it agrees with FP32 on 20 % of 5 images.",
        (
            "On 2 images that FP32 names correctly, INT8 answers a sibling "
            "(another class of the same genus)."
        ),
        "Only 31 % of INT8's arithmetic runs in INT8: expect a smaller gain in speed.",
        (
            "The hold-out set has only 40 images: its shares are uncertain by about 12 percentage "
            "points. More images make them more certain."
        ),
        (
            "No hold-out image is labelled: this report shows where answers differ from FP32, "
            "not which of them is correct."
        ),
        (
            "Calibration used only 12 images: ranges found on few images may miss what "
            "the camera will see."
        ),
        "2 images could not be used and were skipped.",
        "The model: outputs are softmaxed.",
    ]
    text = Page(report_html(whole)).text
    assert all(sentence in text for sentence in told)


def test_the_budget_is_written_in_words_with_its_direction() -> None:
    budget = (
        BudgetCheck("mean_kl", 0.02, 0.0123, True),
        BudgetCheck("class_drop", 0.1, None, False),
        BudgetCheck("own_key", 3.0, 2.0, True),
    )
    text = Page(report_html(report(int8(budget=budget)))).text
    assert "mean KL divergence from FP32 at most 0.02 0.0123 met" in text
    assert "loss of top-1 accuracy of the worst class at most 0.1 not measured not met" in text
    assert "own_key 3 2 met" in text


def test_a_class_that_loses_much_is_a_worry() -> None:
    assert not any("loses most" in line for line in concerns(report()))
    worn = int8(fidelity=fidelity(worst_class_drop=0.4))
    expected = (
        "The class that loses most with INT8 is named correctly 40 percentage points less often."
    )
    assert expected in concerns(report(worn))


def test_a_class_without_a_label_goes_by_its_index() -> None:
    rows = [{"index": 17, "images": 5, "agreement": 0.2}]
    text = Page(report_html(report(int8(fidelity=fidelity(worst_classes=rows))))).text
    assert "class 17 20 % of 5 images" in text


def test_the_fidelity_that_calibration_measures_fits_the_report() -> None:
    reference = np.eye(4, dtype=np.float32)[[0, 1, 2, 3] * 10]
    candidate = reference.copy()
    candidate[0] = [0, 1, 0, 0]
    measured = compare(
        reference, candidate, kind="probabilities", indices=[0, 1, 2, 3] * 10, labels=list("abcd")
    )
    variant = int8(fidelity=measured.to_dict())
    page = Page(report_html(report(variant)))
    assert "INT8 gives the same answer as FP32 on 39 of 40 hold-out images" in page.text
    assert "It names 39 of 40 labelled images correctly; FP32 names 40." in page.text
    assert "a 90 % of 10 images" in page.text
    plain = json.loads(json.dumps(report_json(report(variant)), allow_nan=False))
    assert plain["variants"][0]["fidelity"]["agreement"] == 0.975


def test_nothing_to_worry_about_is_said_too() -> None:
    calm = int8(fidelity=fidelity(1000, 998, worst_classes=[]), sibling_confusions_added=0)
    whole = report(calm, calibration=CalibrationFacts("garden", 500, (), "", "max"))
    assert concerns(whole) == ()
    assert "Nothing stood out." in Page(report_html(whole)).text


@pytest.mark.parametrize("same", range(21))
def test_wilson_interval_solves_its_equation(same: int) -> None:
    # The ends are the shares p with |same/n - p| = z sqrt(p (1 - p) / n); scanned by brute force.
    n, z = 20, 1.959963984540054
    shares = np.linspace(0, 1, 200_001)
    inside = shares[np.abs(same / n - shares) <= z * np.sqrt(shares * (1 - shares) / n) + 1e-12]
    assert words.wilson_interval(same, n) == pytest.approx((inside.min(), inside.max()), abs=1e-5)


def test_wilson_interval_refuses_what_it_cannot_answer() -> None:
    for successes, trials in ((0, 0), (2, 1), (-1, 5)):
        with pytest.raises(ValueError, match="no interval"):
            words.wilson_interval(successes, trials)


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.9634, "96.3 %"), (1.0, "100 %"), (0.99996, ">99.9 %"), (0.00001, "<0.1 %"), (0, "0 %"),
     (None, "not measured"), (math.nan, "not measured"), ("x", "not measured")],
)  # fmt: skip
def test_percentages_never_round_to_all_or_nothing(share: object, text: str) -> None:
    assert words.percent(share).replace("\u00a0", " ") == text


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [(0, "0 B"), (999, "999 B"), (3_900_000, "3.9 MB"), (142_000_000, "142 MB"), (5e12, "5000 GB")],
)
def test_sizes_read_well(n_bytes: float, text: str) -> None:
    assert words.size(n_bytes).replace("\u00a0", " ") == text


confidence = st.floats(allow_nan=True, allow_infinity=True, width=32)


@examples(60)
@given(st.lists(st.tuples(confidence, confidence, st.booleans()), max_size=40))
def test_confidence_charts_draw_each_finite_point_once(points) -> None:
    finite = [p for p in points if math.isfinite(p[0]) and math.isfinite(p[1])]
    scatter = ET.fromstring(charts.confidence_scatter(points))
    same, other = scatter.find("g[@class='same']"), scatter.find("g[@class='changed']")
    assert same is not None
    assert other is not None
    assert len(same) == sum(p[2] for p in finite)
    assert len(other) == len(finite) - len(same)
    for dot in same:
        assert 46 <= float(dot.get("cx", "nan")) <= 316
        assert 8 <= float(dot.get("cy", "nan")) <= 278
    bars = ET.fromstring(charts.change_histogram(points)).findall("rect")
    assert bool(bars) == bool(finite)
    assert all(float(bar.get("height", "nan")) > 0 for bar in bars)


def test_the_histogram_puts_changes_where_they_belong() -> None:
    points = [(0.5, 0.5, True)] * 3 + [(0.9, 0.4, False)]
    svg = ET.fromstring(charts.change_histogram(points))
    bars = {bar.get("class"): bar for bar in svg.findall("rect")}
    labels = [text.text for text in svg.findall("text")]
    assert float(bars["same"].get("height")) == pytest.approx(260)
    assert float(bars["changed"].get("height")) == pytest.approx(260 / 3, abs=0.01)
    assert float(bars["changed"].get("x")) < 60 < 170 < float(bars["same"].get("x")) < 181
    assert labels[:4] == ["−50", "0", "+50", "3"]


def test_a_full_scatter_keeps_every_changed_answer() -> None:
    points = [(0.5, 0.5, True)] * 10_000 + [(0.5, 0.4, False)] * 50
    svg = ET.fromstring(charts.confidence_scatter(points))
    assert [len(group) for group in svg.findall("g")] == [charts.MAX_POINTS - 50, 50]
    note = "Drawn are 3,000 of 10,050 images"
    assert note in Page(report_html(report(int8(scatter=tuple(points))))).text
    assert "Drawn are" not in Page(report_html(report())).text


numbers = st.floats(allow_nan=True, allow_infinity=True)


@example(5e-324, 5e-324, 5e-324, (1, 2), "subnormal")
@example(1.7e308, 1.7e308, 1.7e308, (1, 2), "huge")
@examples(80)
@given(
    numbers, numbers, numbers, st.lists(st.integers(0, 10**12), max_size=64).map(tuple), st.text()
)
def test_range_strips_are_well_formed_whatever_the_range(amax, most, limit, counts, name) -> None:
    item = strip(amax=amax, maximum=most, histogram=counts, histogram_limit=limit, tensor=name)
    svg = ET.fromstring(charts.range_strip(item))
    numerals = "".join(value for part in svg.iter() for value in part.attrib.values())
    assert "nan" not in numerals
    assert "inf" not in numerals


def test_a_range_strip_marks_amax_and_what_is_clipped() -> None:
    svg = ET.fromstring(charts.range_strip(strip()))
    paths = {path.get("class"): path.get("d", "") for path in svg.findall("path")}
    lines = {line.get("class"): float(line.get("x1", "nan")) for line in svg.findall("line")}
    assert paths["same"].count("M") == 2
    assert paths["changed"].count("M") == 1
    assert lines["amax"] == pytest.approx(1 + 198 * 4 / 6)
    assert lines["maximum"] == pytest.approx(1 + 198)
    unclipped = ET.fromstring(charts.range_strip(strip(amax=6.0)))
    assert [path.get("class") for path in unclipped.findall("path")] == ["same"]


def test_agreement_bars_are_as_long_as_the_share() -> None:
    svg = ET.fromstring(charts.agreement_bars([ClassAgreement("<Tit> & co", 4, 0.25)]))
    track, bar = svg.findall("rect")
    assert float(bar.get("width", "nan")) == pytest.approx(float(track.get("width", "nan")) / 4)
    assert svg.findtext("text") == "<Tit> & co"


def test_worst_classes_stand_worst_first() -> None:
    html = report_html(report())
    assert html.index("Willow Tit") < html.index("Marsh Tit")


@pytest.mark.parametrize("rows", [None, "text", [1, None], [{"label": "x"}], {}])
def test_malformed_worst_classes_are_left_out(rows: object) -> None:
    html = report_html(report(int8(fidelity=fidelity(worst_classes=rows))))
    assert "Classes that agree least" not in html


@given(st.lists(st.integers(0, 10**6), max_size=300), st.integers(1, 64))
def test_downsampling_loses_no_count(counts: list[int], bins: int) -> None:
    merged, limit = downsample(counts, 3.0, bins)
    assert sum(merged) == sum(counts)
    assert len(merged) <= bins
    assert limit >= 3.0 * (1 - 1e-12)
    if counts:
        # A new bin is as wide as a whole number of old ones.
        ratio = (limit / len(merged)) / (3.0 / len(counts))
        assert ratio == pytest.approx(round(ratio))


def test_too_much_for_a_report_is_refused() -> None:
    with pytest.raises(ValueError, match="at most 24 changed answers"):
        int8(changed=(changed(),) * 25, changed_total=25)
    with pytest.raises(ValueError, match="changed_total is 0"):
        int8(changed=(changed(),), changed_total=0)
    with pytest.raises(ValueError, match="use downsample"):
        strip(histogram=(1,) * 65)
    with pytest.raises(ValueError, match="at least one bin"):
        downsample([1], 1.0, 0)


def test_a_thumbnail_is_a_small_jpeg_in_the_right_colours() -> None:
    frame = np.zeros((400, 200, 3), np.uint8)
    frame[:, :, 0] = 220  # blue, as OpenCV orders it
    with Image.open(io.BytesIO(thumbnail(frame))) as small:
        assert (small.format, small.size) == ("JPEG", (80, 160))
        red, green, blue = small.convert("RGB").getpixel((40, 80))
    assert blue > 200
    assert max(red, green) < 20


def test_a_small_frame_is_not_enlarged_and_a_sliver_survives() -> None:
    for shape, size in (((20, 10, 3), (10, 20)), ((1, 5000, 3), (160, 1))):
        with Image.open(io.BytesIO(thumbnail(np.zeros(shape, np.uint8)))) as small:
            assert small.size == size


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_what_is_no_frame_makes_no_thumbnail(frame) -> None:
    with pytest.raises(ImageError, match=r"H x W x 3|0 frame|from a"):
        thumbnail(frame)


def test_without_jinja2_the_extra_is_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingDependencyError, match=r"edge-fg\[build\]"):
        report_html(report())


def test_what_the_budget_left_in_float_is_listed_and_drawn() -> None:
    page = Page(report_html(report(search=searched())))
    assert "2 layers left in float keep the budget." in page.text
    assert "an agreement of about 99.1 % can be expected on others" in page.text
    assert "What was tried (2)" in page.text
    assert "at most 96.0 % at least 0.006 missed" in page.text
    assert "99.2 % 0.002 kept, with a margin chosen" in page.text
    assert "What the budget left" not in Page(report_html(report())).text
    unmeasured = report_html(report(search=searched(layers=(), expected=None)))
    assert "What each layer costs" not in unmeasured


def test_json_holds_the_search() -> None:
    search = report_json(report(search=searched()))["search"]
    assert (search["met"], search["assured"], search["trial_images"]) == (True, True, 256)
    assert search["expected_agreement"] == 0.991
    assert search["layers"][1] == {
        "nodes": ["left", "right"], "macs": 0.2, "mean_kl": 0.001, "kept_float": False
    }  # fmt: skip
    assert [(one["kept"], one["complete"], one["taken"]) for one in search["tried"]] == [
        (0, False, False),
        (1, True, True),
    ]


def test_sensitivity_bars_are_as_long_as_the_cost() -> None:
    svg = ET.fromstring(charts.sensitivity_bars(searched().layers))
    bars = [bar for bar in svg.findall("rect") if bar.get("class") != "track"]
    assert [bar.get("class") for bar in bars] == ["changed", "same"]  # none for a cost of 0
    assert float(bars[1].get("width", "nan")) == pytest.approx(float(bars[0].get("width")) / 4)
    labels = [text.text for text in svg.findall("text")]
    assert labels[:2] == ["\u25c6 stem", "0.00400, 4.0\u00a0% of the work"]
    assert labels[2] == "left + right"
    assert charts.sensitivity_bars([]).startswith("<svg")


@given(st.lists(st.tuples(st.floats(), st.floats(), st.booleans(), st.text()), max_size=6))
def test_sensitivity_bars_are_well_formed_whatever_the_cost(rows) -> None:
    layers = [SearchedLayer((name,), share, cost, kept) for cost, share, kept, name in rows]
    svg = ET.fromstring(charts.sensitivity_bars(layers))
    widths = [float(bar.get("width", "nan")) for bar in svg.findall("rect")]
    assert all(0 <= width <= 200 for width in widths)


def test_of_many_layers_the_costliest_are_drawn_and_the_rest_counted() -> None:
    layers = tuple(SearchedLayer((f"layer {n}",), 0.01, 1 / (n + 1), False) for n in range(40))
    html = report_html(report(search=searched(layers=layers)))
    assert "layer 29" in html
    assert "layer 30" not in html
    assert "The 10 layers with the lowest cost are not drawn." in html


def tables(html: str, name: str) -> list[list[list[str]]]:
    """Return the body rows of the tables of a class, cell by cell."""
    found = []
    for table in re.findall(rf'<table class="{name}">(.*?)</table>', html, re.DOTALL):
        body = table.partition("<tbody>")[2]
        rows = re.findall(r"<tr>(.*?)</tr>", body, re.DOTALL)
        cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in rows]
        found.append([[cell.replace("\u00a0", " ") for cell in row] for row in cells])
    return found


def test_corrections_are_listed_with_their_figures_kept_ones_apart() -> None:
    lost = correction(
        name="GPTQ-style rounding", kept=False, mean_kl=0.0411, reason="not beyond chance"
    )
    whole = report(
        corrections=(lost, correction(), correction(name="zero-point shift of ReLU outputs"))
    )
    html = report_html(whole)
    kept, left_out = tables(html, "corrections")
    assert kept[0] == [
        "bias correction", "0.03120", "0.01870", "91.0 %", "95.3 %", "softened divergence -40 %",
    ]  # fmt: skip
    assert [row[0] for row in kept] == ["bias correction", "zero-point shift of ReLU outputs"]
    assert [(row[0], row[2], row[5]) for row in left_out] == [
        ("GPTQ-style rounding", "0.04110", "not beyond chance")
    ]
    page = Page(html)
    assert "Of 3 attempts 2 were kept." in page.text
    assert ("a", {"href": "#corrections"}) in page.elements
    plain = report_json(whole)["repairs"]
    assert [one["kept"] for one in plain] == [False, True, True]
    assert plain[1] == dataclasses.asdict(correction())


def test_many_left_out_corrections_are_folded_and_none_is_lost() -> None:
    lost = [correction(name=f"attempt {n}", kept=False) for n in range(40)]
    for few, is_open in ((lost[:3], True), (lost, False)):
        html = report_html(report(corrections=tuple(few)))
        (left_out,) = tables(html, "corrections")
        assert [row[0] for row in left_out] == [one.name for one in few]
        folded = html.partition('id="corrections"')[2].partition("</section>")[0]
        assert ("<details open>" in folded) == is_open
        assert f"Of {len(few)} attempts none brought INT8 nearer to FP32" in Page(html).text


def test_that_no_correction_was_tried_is_said_with_the_reason() -> None:
    whole = report(corrections=())
    few = dataclasses.replace(whole.calibration, images=40)
    text = Page(report_html(dataclasses.replace(whole, calibration=few))).text
    assert "of 40 calibration images none can be spared" in text
    text = Page(report_html(whole)).text
    assert "No correction of INT8 was tried: none applies to this model." in text
    assert tables(report_html(whole), "corrections") == []


def test_without_int8_of_its_own_a_report_has_no_corrections() -> None:
    html = report_html(report())
    assert 'id="corrections"' not in html
    assert "#corrections" not in html
    assert report_json(report())["repairs"] is None


def test_a_correction_that_measured_nothing_finite_is_still_a_report() -> None:
    odd = correction(mean_kl_without=math.inf, mean_kl=math.nan, agreement=math.nan)
    (kept,) = tables(report_html(report(corrections=(odd,))), "corrections")
    assert kept[0][1:5] == ["not measured", "not measured", "91.0 %", "not measured"]
    plain = report_json(report(corrections=(odd,)))["repairs"][0]
    assert plain["mean_kl"] is None
    assert plain["mean_kl_without"] is None


def methods(**losses: float | None) -> CalibrationFacts:
    candidates = {
        name: {"mean_kl": 0.01 * (number + 1), "agreement": 0.9, "softened": loss}
        for number, (name, loss) in enumerate(losses.items())
    }
    return CalibrationFacts("garden", 500, (), "", "mse", candidates, 166)


@pytest.mark.parametrize(
    ("losses", "told"),
    [
        # The plain mean of the one taken is the largest: what decides is shown, with the reason.
        ({"minmax": 0.0015, "entropy": 0.05, "mse": 0.001}, ["50.0 % more", "50 times as much"]),
        ({"minmax": 0.0025, "entropy": 0.001, "mse": 0.001}, ["2.5 times as much", "as good: the"]),
        ({"minmax": 0.1, "entropy": 0.0, "mse": 0.0}, ["more than none", "as good: the first"]),
    ],
)
def test_why_a_method_of_calibration_was_taken(losses: dict[str, float], told: list[str]) -> None:
    html = report_html(report(calibration=methods(**losses)))
    (rows,) = tables(html, "methods")
    reasons = {row[0]: row[1] for row in rows}
    assert reasons["mse"].endswith("chosen</span> the least softened divergence")
    for name, reason in zip(("minmax", "entropy"), told, strict=True):
        assert reasons[name].startswith(reason)
        assert "chosen" not in reasons[name]
    assert float(rows[2][2]) == losses["mse"]
    page = Page(html)
    assert "on 166 calibration images that it did not see" in page.text
    assert "2 tensors of 2 had a better range by another one" in page.text  # those of `report()`
    plain = report_json(report(calibration=methods(**losses)))["calibration"]["candidates"]
    assert plain["minmax"]["softened"] == losses["minmax"]


def test_a_plan_of_the_cache_took_no_time_and_is_called_so() -> None:
    def said(seconds: float, **values: bool) -> str:
        plan = PlanFacts("tensorrt-rtx", 4_100_000, seconds, "1.7", **values)
        return Page(report_html(report(int8(plan=plan)))).text.replace("\u00a0", " ")

    kept = said(0.0, from_cache=True)
    assert (
        "Compiled for tensorrt-rtx 1.7 by an earlier build, and taken from the plan cache" in kept
    )
    assert " 0.0 s" not in kept
    assert "in <0.1 s: a plan" in said(0.03)
    assert "in 0.5 s: a plan" in said(0.49)


def test_versions_are_a_table() -> None:
    versions = {"numpy": "2.4.6", "onnx": HOSTILE}
    html = report_html(report(provenance={"seed": 0, "versions": versions, "command": "x"}))
    (rows,) = [r for r in tables(html, "narrow") if r[0][0] == "numpy"]
    assert rows[0] == ["numpy", "2.4.6"]
    assert "{&#39;" not in html
    assert "<caption>Versions</caption>" in html
    assert HOSTILE not in html
    assert "versions" not in Page(report_html(report(provenance={"seed": 0}))).text.lower()


def test_drawings_fit_a_narrow_page() -> None:
    """What is wider than a telephone is made smaller by the browser, its letters too."""
    layers = [SearchedLayer((f"{'long ' * 20}{n}",), 0.01, 0.1, True) for n in range(3)]
    html = report_html(report(search=searched(layers=tuple(layers))))
    widths = [float(width) for width in re.findall(r"<svg [^>]*?\bwidth=\"([\d.]+)\"", html)]
    assert len(widths) >= 5
    assert max(widths) <= 360
