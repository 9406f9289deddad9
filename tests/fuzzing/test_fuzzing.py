"""The same few cases of each kind in every run; `make fuzz` tries 100,000 new ones."""

from __future__ import annotations

import pytest

for needed in ("av", "cv2", "onnx", "onnxruntime"):
    pytest.importorskip(needed)

from fuzzing import runner  # noqa: E402
from fuzzing.cases import KINDS, Case, try_case  # noqa: E402
from support.waiting import HANG  # noqa: E402

QUICK = [kind for kind, (share, _) in KINDS.items() if share >= 1000]
USUAL = [kind for kind, (share, _) in KINDS.items() if share]


@pytest.mark.parametrize("kind", QUICK)
def test_spoilt_inputs_end_well_or_with_an_error_of_ours(kind: str) -> None:
    outcomes = {
        str(case): try_case(case)
        for case in (Case(kind, 0, n) for n in range(120 if KINDS[kind][0] >= 5000 else 40))
    }
    found = {case: one.text for case, one in outcomes.items() if one.end == "finding"}
    assert not found
    # Else nothing reads on behind its first check, or nothing is spoilt.
    assert {one.end for one in outcomes.values()} == {"well", "refused"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", USUAL)
def test_more_of_them(kind: str) -> None:
    count = max(40, KINDS[kind][0] // 20)
    found = runner.fuzz({kind: count}, 1, jobs=1)
    assert not found.findings, [runner.repeat_command(case) for case, _ in found.findings]
    assert found.ends[kind].total() == count


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("broken-fail", "KeyError: 'no'"),
        ("broken-crash", "SIGSEGV"),
        ("broken-hang", "no answer within 1 s"),
        ("broken-grow", "MB more than before"),
        ("broken-message", "no short, plain line"),
    ],
)
def test_what_goes_wrong_is_a_finding_of_its_case(kind: str, said: str) -> None:
    patience = 1.0 if kind == "broken-hang" else HANG
    found = runner.fuzz({kind: 2}, 3, jobs=1, first=7, patience=patience)
    assert sorted(str(case) for case, _ in found.findings) == [f"{kind}/3/7", f"{kind}/3/8"]
    assert all(said in text for _, text in found.findings)
    assert f"--repeat {kind}/3/7" in runner.repeat_command(Case(kind, 3, 7))


def test_the_same_name_is_the_same_case() -> None:
    case = Case("bundle", 5, 11)
    first, second = try_case(case), try_case(case)
    assert first.end == second.end
    # The messages differ in the folder alone.
    assert len(first.text) == len(second.text), first.text
