"""Which images are calibrated on, which prove the result, and which are left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_fg.errors import DatasetError, UsageError
from edge_fg_calibration import ImageSet, LabelledImage, TopAnswer, read_image_set, sample
from edge_fg_calibration.data.near_duplicates import near_duplicates, read_fingerprints
from edge_fg_calibration.data.sampling import summary
from support.properties import sweep


def photograph(seed: int, size: tuple[int, int] = (64, 48)) -> Image.Image:
    """A smooth image with large and small features, unlike that of any other seed."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    return coarse.resize(size, Image.Resampling.BICUBIC)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Sixty images without a class."""
    root = tmp_path / "set"
    root.mkdir()
    for seed in range(60):
        photograph(seed).save(root / f"{seed:02}.png")
    return root


def by_number(images: ImageSet) -> Mapping[Path, TopAnswer]:
    """A model that answers with a third of the image's number and is surest of the last."""
    return {
        one.path: TopAnswer(int(one.path.stem) // 20, int(one.path.stem) / 60)
        for one in images.items
    }


def names(images: ImageSet) -> set[str]:
    return {one.path.name for one in images.items}


def test_the_sides_are_disjoint_and_complete(folder: Path) -> None:
    found = sample(read_image_set(folder), 10, predict=by_number)
    assert len(found.calibration) == 10
    assert found.not_chosen == 10
    assert len(found.hold_out) == 40
    assert not names(found.calibration) & names(found.hold_out)
    assert "10 images to calibrate on, chosen by the model's own answers" in summary(found)


def test_the_choice_depends_on_seed_and_contents_not_on_names(folder: Path, tmp_path: Path) -> None:
    def contents(images: ImageSet) -> set[bytes]:
        return {one.path.read_bytes() for one in images.items}

    def constant(images: ImageSet) -> Mapping[Path, TopAnswer]:
        return {one.path: TopAnswer(0, 0.5) for one in images.items}

    whole = read_image_set(folder)
    first = sample(whole, 10, seed=3, predict=constant)
    backwards = sample(replace(whole, items=whole.items[::-1]), 10, seed=3, predict=constant)
    other = tmp_path / "other"
    other.mkdir()
    for number, path in enumerate(sorted(folder.iterdir(), key=lambda one: one.name[::-1])):
        (other / f"{number}.png").write_bytes(path.read_bytes())
    renamed = sample(read_image_set(other), 10, seed=3, predict=constant)
    assert contents(first.calibration) == contents(backwards.calibration)
    assert contents(first.calibration) == contents(renamed.calibration)
    assert contents(first.hold_out) == contents(renamed.hold_out)
    assert contents(first.calibration) != contents(sample(whole, 10, seed=4).calibration)


def test_hard_examples_have_their_share_and_come_from_one_side_only(folder: Path) -> None:
    whole = read_image_set(folder)
    plain = sample(whole, 12)
    hard = sample(whole, 12, predict=by_number, hard_share=0.5)
    assert hard.hard == 6
    # What proves the result is drawn without a look at the margins.
    assert names(hard.hold_out) == names(plain.hold_out)
    side = {one for one in names(read_image_set(folder)) if one not in names(hard.hold_out)}
    assert set(sorted(side)[:6]) <= names(hard.calibration)


def test_the_models_answers_make_up_for_missing_classes(folder: Path) -> None:
    found = sample(read_image_set(folder), 12, predict=by_number, hard_share=0)
    answers = [int(one.path.stem) // 20 for one in found.calibration.items]
    whole = sample(read_image_set(folder), 12)
    side = [
        int(name.split(".")[0]) // 20
        for name in names(read_image_set(folder)) - names(whole.hold_out)
    ]
    assert found.strata == "answer"
    for answer in range(3):
        assert abs(answers.count(answer) - side.count(answer) / 2) <= 1


def test_classes_decide_where_they_are_known(folder: Path) -> None:
    for label in ("finch", "owl"):
        (folder / label).mkdir()
    for number, path in enumerate(sorted(folder.glob("*.png"))):
        path.rename(folder / ("owl" if number % 4 == 0 else "finch") / path.name)
    found = sample(read_image_set(folder), 12, predict=by_number, hard_share=0)
    labels = [one.label for one in found.calibration.items]
    assert found.strata == "class"
    assert labels.count("owl") == 3


def test_a_small_set_asks_the_model_nothing(folder: Path) -> None:
    def refuse(_: ImageSet) -> Mapping[Path, TopAnswer]:
        raise AssertionError("asked for nothing")

    found = sample(read_image_set(folder), 512, predict=refuse)
    assert (len(found.calibration), len(found.hold_out)) == (30, 30)
    assert (found.hard, found.not_chosen, found.strata) == (0, 0, "chance")


def test_a_near_duplicate_never_proves_its_twin(folder: Path) -> None:
    for number in range(60):
        twin = Image.open(folder / f"{number:02}.png").resize((80, 60), Image.Resampling.BILINEAR)
        twin.point(lambda value: min(255, value + 9)).save(folder / f"twin{number:02}.jpg")
    found = sample(read_image_set(folder), 60)
    left = names(found.calibration) | names(found.hold_out)
    assert len(found.duplicates) == 60
    assert {name.removeprefix("twin")[:2] for name in left} == {f"{n:02}" for n in range(60)}
    for path, other in found.duplicates.items():
        assert path.stem.removeprefix("twin") == other.stem.removeprefix("twin")


def test_copies_of_the_same_bytes_count_once_and_the_labelled_one_stays(folder: Path) -> None:
    (folder / "wren").mkdir()
    (folder / "wren" / "copy.png").write_bytes((folder / "07.png").read_bytes())
    found = sample(read_image_set(folder), 20)
    assert found.duplicates == {folder / "07.png": folder / "wren" / "copy.png"}


def test_images_without_texture_are_not_called_the_same(tmp_path: Path) -> None:
    for grey in range(10, 26):
        Image.new("RGB", (20, 20), (grey, grey, grey)).save(tmp_path / f"{grey}.png")
    fingerprints, corrupt = read_fingerprints(read_image_set(tmp_path))
    assert len(fingerprints) == 16
    assert near_duplicates(fingerprints) == {} == corrupt


def test_corrupt_files_are_left_out_by_name_and_reason(folder: Path) -> None:
    (folder / "03.png").write_bytes((folder / "03.png").read_bytes()[:200])
    (folder / "empty.jpg").write_bytes(b"")
    found = sample(read_image_set(folder), 20)
    assert {path.name for path in found.corrupt} == {"03.png", "empty.jpg"}
    assert all(found.corrupt.values())
    assert "2 left out that can't be read" in summary(found)


def test_too_few_says_what_became_of_the_others(tmp_path: Path) -> None:
    for number in range(10):
        photograph(0, (64 + number, 48)).save(tmp_path / f"{number}.png")
    (tmp_path / "bad.png").write_bytes(b"no image")
    with pytest.raises(DatasetError, match="1 distinct images") as caught:
        sample(read_image_set(tmp_path), 4)
    assert "9 show the same" in str(caught.value)
    assert "bad.png" in str(caught.value)


@pytest.mark.parametrize("seed", sweep(range(4)))
def test_groups_stay_together(folder: Path, seed: int) -> None:
    whole = read_image_set(folder)
    items = tuple(
        replace(one, group=f"stretch {number // 10}") for number, one in enumerate(whole.items)
    )
    found = sample(replace(whole, items=items), 30, seed=seed)
    sides = [{one.group for one in s.items} for s in (found.calibration, found.hold_out)]
    assert sides[0]
    assert sides[1]
    assert not sides[0] & sides[1]
    assert len(found.calibration) <= 30
    alone = tuple(replace(one, group="one") for one in items)
    with pytest.raises(DatasetError, match="one moment"):
        sample(replace(whole, items=alone), 30)


def test_nonsense_is_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match="at least 1"):
        sample(read_image_set(folder), 0)
    with pytest.raises(UsageError, match="hard examples"):
        sample(read_image_set(folder), 5, hard_share=1.5)


def test_real_photographs_of_one_scene_are_found(data_dir: Path) -> None:
    birds = sorted((data_dir / "images" / "birds").glob("*.jpg"))
    names_ = ("baikal_teal_", "caatinga_cacholote_", "snowy_egret_", "squacco_heron_")
    some = tuple(LabelledImage(one, None, None) for one in birds if one.name.startswith(names_))
    fingerprints, _ = read_fingerprints(ImageSet(some, birds[0].parent, "birds"))
    found = {frozenset({a.name, b.name}) for a, b in near_duplicates(fingerprints).items()}
    assert found == {
        frozenset({"baikal_teal_4.jpg", "baikal_teal_5.jpg"}),
        frozenset({"caatinga_cacholote_3.jpg", "caatinga_cacholote_5.jpg"}),
    }
