"""Reading sets of images, splitting them, feeding them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_fg.errors import DatasetError, ImageError, UsageError
from edge_fg.labels import Label, Labels
from edge_fg_calibration import (
    LabelledImage,
    batches,
    image_set_digest,
    read_image_set,
    resolve_labels,
    sample,
)
from edge_fg_calibration.data.splitting import content_hash, split_by_class
from support.properties import sweep


def image(path: Path, value: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(value).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three classes of 10, 4 and 2 images and two without a class."""
    number = 0
    for name, count in (("finch", 10), ("owl", 4), ("wren", 2)):
        for place in range(count):
            image(tmp_path / "set" / name / f"{place}.png", number)
            number += 1
    for place in range(2):
        image(tmp_path / "set" / f"loose{place}.png", number + place)
    (tmp_path / "set" / "notes.txt").write_text("not an image")
    return tmp_path / "set"


def test_a_directory_gives_sorted_images_with_their_folders_as_labels(folder: Path) -> None:
    found = read_image_set(folder)
    assert len(found) == 18
    assert [one.path for one in found.items] == sorted(one.path for one in found.items)
    assert {one.label for one in found.items} == {"finch", "owl", "wren", None}
    assert all(one.index is None for one in found.items)


def test_a_csv_keeps_its_order_and_empty_cells_mean_unknown(folder: Path) -> None:
    rows = "file,index,label,extra\nwren/1.png,7,,x\nfinch/0.png,,finch,\nloose0.png,,,\n"
    path = folder / "set.csv"
    path.write_text("\ufeff" + rows, encoding="utf-8")
    assert read_image_set(path).items == (
        LabelledImage(folder / "wren/1.png", None, 7),
        LabelledImage(folder / "finch/0.png", "finch", None),
        LabelledImage(folder / "loose0.png", None, None),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column `file`"),
        ("path\na.png\n", "no column `file`"),
        ("file\n", "no images found"),
        ("file\ngone.png\nalso.png\n", "2 of 2 files are missing: gone.png, also.png"),
        ("file,index\nloose0.png,seven\n", "'seven' is not a whole number"),
        ("file,index\nloose0.png,-1\n", "negative"),
        ("file\n/etc/passwd\n", "absolute or outside"),
        ("file\nowl/../../x.png\n", "absolute or outside"),
        ("file\nC:\\x.png\n", "absolute or outside"),
        ("file\nloose0.png,1,2\n", "more cells than columns"),
        ('file,label\n"loose0.png,1\n', "not a CSV"),
    ],
)
def test_a_bad_csv_is_refused_with_its_reason(folder: Path, text: str, message: str) -> None:
    path = folder / "set.csv"
    path.write_text(text)
    with pytest.raises(DatasetError, match=r"set\.csv") as caught:
        read_image_set(path)
    assert message in str(caught.value)


def test_binary_nonsense_and_missing_paths_are_refused(folder: Path) -> None:
    (folder / "set.csv").write_bytes(b"\xff\xfe\x00file")
    with pytest.raises(DatasetError, match="not a CSV"):
        read_image_set(folder / "set.csv")
    with pytest.raises(DatasetError, match="no such directory"):
        read_image_set(folder / "nowhere")
    with pytest.raises(DatasetError, match="18 images found, at least 30 needed"):
        read_image_set(folder, minimum=30)


def named(*names: str) -> Labels:
    return Labels([Label(index, name) for index, name in enumerate(names)])


def test_labels_become_indices_whatever_their_case(folder: Path) -> None:
    found, unknown = resolve_labels(read_image_set(folder), named("Owl", "FINCH", "gull"))
    assert unknown == ("wren",)
    by_label = {one.label: one.index for one in found.items}
    assert by_label == {"finch": 1, "owl": 0, "wren": None, None: None}


def test_an_index_beyond_the_model_is_refused(folder: Path) -> None:
    (folder / "set.csv").write_text("file,index\nloose0.png,3\n")
    with pytest.raises(DatasetError, match="index 3, but the model has 3 classes"):
        resolve_labels(read_image_set(folder / "set.csv"), named("a", "b", "c"))


def test_the_split_is_disjoint_by_content_and_repeatable(folder: Path) -> None:
    (folder / "wren" / "copy.png").write_bytes((folder / "finch" / "0.png").read_bytes())
    whole = read_image_set(folder)
    found = sample(whole, 3, seed=1)
    sides = (found.calibration, found.hold_out)
    contents = [{one.path.read_bytes() for one in part.items} for part in sides]
    assert len(found.calibration) == len(contents[0]) == 3
    assert found.not_chosen == 3
    assert len(found.hold_out) == len(contents[1]) == 12
    assert not contents[0] & contents[1]
    assert sample(whole, 3, seed=1) == found
    assert sample(whole, 3, seed=2).hold_out != found.hold_out


def by_class(images, count: int, seed: int = 0):
    contents = {one.path: content_hash(one.path) for one in images.items}
    return split_by_class(images, contents, count, seed)


@pytest.mark.parametrize("seed", sweep(range(5)))
def test_classes_give_in_proportion(folder: Path, seed: int) -> None:
    first, _ = by_class(read_image_set(folder), 9, seed)
    labels = [one.label for one in first.items]
    assert 4 <= labels.count("finch") <= 6
    assert 1 <= labels.count("owl") <= 3


def test_a_small_set_is_halved_and_a_tiny_one_refused(folder: Path) -> None:
    first, second = by_class(read_image_set(folder), 512)
    assert (len(first), len(second)) == (9, 9)
    with pytest.raises(DatasetError, match="4 distinct images; at least 8"):
        sample(read_image_set(folder / "owl"), 512)
    with pytest.raises(UsageError, match="at least 1"):
        sample(read_image_set(folder), 0)


def test_the_digest_knows_contents_not_names(folder: Path) -> None:
    before = image_set_digest(read_image_set(folder))
    (folder / "owl" / "0.png").rename(folder / "owl" / "zzz.png")
    assert image_set_digest(read_image_set(folder)) == before
    image(folder / "owl" / "1.png", 999)
    assert image_set_digest(read_image_set(folder)) != before


def test_batches_leave_out_what_cannot_be_read_and_say_so(folder: Path) -> None:
    broken = folder / "owl" / "0.png"
    broken.write_bytes(b"not an image")

    def read(path: Path) -> np.ndarray:
        if path == broken:
            raise ImageError(f"{path}: broken")
        return np.full((2, 2, 3), len(path.name), np.uint8)

    skipped: list[Path] = []
    whole = read_image_set(folder)
    found = list(
        batches(
            whole,
            lambda frames: np.stack(frames).astype(np.float32),
            4,
            lambda path, _: skipped.append(path),
            read=read,
        )
    )
    assert skipped == [broken]
    assert [len(items) for items, _ in found] == [4, 4, 4, 4, 1]
    assert [len(array) for _, array in found] == [4, 4, 4, 4, 1]
    listed = [one for items, _ in found for one in items]
    assert listed == [one for one in whole.items if one.path != broken]
    assert found[0][1][0, 0, 0, 0] == len(listed[0].path.name)


def test_batches_count_the_odd_images(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(3):  # a few extraneous bytes, as some cameras write them
        made = folder / "owl" / f"odd{number}.jpg"
        Image.new("RGB", (8, 8), (number, 0, 0)).save(made)
        made.write_bytes(made.read_bytes()[:-2] + bytes(4) + b"\xff\xd9")
    assert len(list(batches(read_image_set(folder), len, 4, pytest.fail))) > 4
    assert "images that have bytes too many: 3 in all" in caplog.text


def test_a_set_without_one_readable_image_is_refused(folder: Path) -> None:
    def read(path: Path) -> np.ndarray:
        raise ImageError("broken")

    skipped: list[Path] = []
    with pytest.raises(DatasetError, match="none of its 18 images can be read"):
        list(
            batches(read_image_set(folder), np.stack, 4, lambda p, _: skipped.append(p), read=read)
        )
    assert len(skipped) == 18


def test_a_folder_is_read_whole_each_image_once_and_the_rest_is_named(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    image(folder / "owl" / "100MEDIA" / "IMG_1.png", 77).rename(folder / "owl" / "IMG_1.PNG")
    image(folder / "owl" / "._IMG_1.png", 78)
    image(folder / "__MACOSX" / "a.png", 79)
    image(tmp_path / "far" / "jay.png", 80)
    (folder / "jay").symlink_to(tmp_path / "far")
    (folder / "wren" / "up").symlink_to(folder)
    (folder / "wren" / "again.png").symlink_to(folder / "wren" / "0.png")
    (folder / "owl" / "clip.MP4").touch()
    found = read_image_set(folder)
    assert len(found) == 20
    assert {one.label for one in found.items if one.path.stem in ("IMG_1", "jay")} == {"owl", "jay"}
    assert [one.path for one in found.items] == sorted(one.path for one in found.items)
    assert "left out, because they are not read here: 1 .mp4, 1 .txt" in caplog.text


@pytest.mark.parametrize("name", ["x" * 5000, "folder/" + "x" * 300, "a/" * 3000 + "b.png"])
def test_names_that_no_file_can_have_are_missing_files(tmp_path: Path, name: str) -> None:
    table = tmp_path / "set.csv"
    table.write_text(f"file\n{name}\n")
    with pytest.raises(DatasetError, match="1 of 1 files are missing") as caught:
        read_image_set(table)
    assert len(str(caught.value)) < 700
    with pytest.raises(DatasetError, match="no such directory or CSV"):
        read_image_set(tmp_path / name)


def test_a_giant_table_is_refused_unread(tmp_path: Path) -> None:
    table = tmp_path / "set.csv"
    with table.open("wb") as file:
        file.truncate(5 << 30)
    with pytest.raises(DatasetError, match="larger than 64 MB"):
        read_image_set(table)
