"""When a model's accuracy is called near chance."""

from __future__ import annotations

import numpy as np
import pytest

from edge_fg_calibration.data.near_chance import near_chance
from edge_fg_calibration.data.out_of_domain import domain_warnings


def truths(images: int, classes: int) -> list[int]:
    return np.random.default_rng(5).integers(0, classes, images).tolist()


@pytest.mark.parametrize("classes", [2, 4, 29, 965])
def test_labels_in_another_order(classes: int) -> None:
    true = truths(40, classes)
    assert near_chance([(one + 1) % classes for one in true], true, classes) == (0, 40)
    assert near_chance(true, true, classes) is None


@pytest.mark.parametrize("classes", [3, 5, 29])
def test_always_the_same_answer(classes: int) -> None:
    true = truths(100, classes)
    assert near_chance([1] * 100, true, classes) == (true.count(1), 100)


def test_a_common_class_is_no_merit_and_no_fault() -> None:
    # 90 of 100 images are empty; one model knows the others, others always say the same.
    true = [0] * 90 + list(range(1, 11))
    assert near_chance([0] * 88 + [3, 4] + list(range(1, 11)), true, 11) is None
    always = near_chance([5] * 100, true, 11)
    assert always == (1, 100)
    assert near_chance([0] * 100, true, 11) is None  # as often right as a good model


@pytest.mark.parametrize("share", [3, 5, 9])
def test_a_set_of_nearly_one_class_is_no_fault_of_a_model(share: int) -> None:
    true = [3] * 250 + [4] * 6
    answers = [3 if number % 10 < share else 5 + number for number in range(250)] + [3] * 6
    assert near_chance(answers, true, 965) is None
    assert near_chance([5 + number for number in range(256)], true, 965) == (0, 256)
    collapsed = near_chance([0] * 250 + [1] * 6, [0, 1, 1] * 84 + [0] * 4, 2)
    assert collapsed is not None


def test_few_images_give_no_verdict() -> None:
    assert near_chance([1] * 5, [2, 3, 4, 5, 6], 100) is None
    assert near_chance([], [], 100) is None
    assert near_chance([1] * 50, [None] * 50, 100) is None
    assert near_chance([0, 1] * 4, [0, 1, 1, 0] * 2, 2) is None  # half of eight


def test_a_weak_model_is_not_a_broken_one() -> None:
    true = truths(200, 500)
    weak = [one if number % 8 == 0 else (one + 7) % 500 for number, one in enumerate(true)]
    assert near_chance(weak, true, 500) is None
    (said,) = domain_warnings(weak, [0.8] * 200, true, [str(one) for one in range(500)])
    assert "names only 12% of the 200 images of known class right: the preprocessing" in said


def test_images_of_one_class() -> None:
    assert near_chance([3] * 30 + [1] * 10, [3] * 40, 20) is None
    assert near_chance([1] * 40, [3] * 40, 20) == (0, 40)


def test_the_same_answer_with_the_same_confidence() -> None:
    nothing: list[int | None] = [None] * 40
    (said,) = domain_warnings([2] * 40, [0.51 + n / 4000 for n in range(40)], nothing, "abcde")
    assert "as if it saw no difference between them: the preprocessing may not be" in said
    different = [0.3 + n / 80 for n in range(40)]
    assert domain_warnings([2] * 40, different, nothing, "abcde") == ()
    assert domain_warnings([2] * 40, [0.51] * 40, [2] * 40, "abcde") == ()
    (said,) = domain_warnings([0, 1, 2, 3] * 10, [0.27] * 40, nothing, "abcd")
    assert "unsure of most images" in said
    assert "preprocessing" in said
