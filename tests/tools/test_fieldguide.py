"""The field guide: its birds, photographs, clip, and the model that ships."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_fg.errors import UsageError
from edge_fg_tools import fieldguide
from edge_fg_tools.fieldguide import (
    BACKGROUND_INDEX,
    GENERA,
    LABELS,
    SPECIES,
    render_clip,
    render_photograph,
    write_clip,
    write_image_set,
)
from edge_fg_tools.fieldguide.dataset import photograph_seed
from edge_fg_tools.fieldguide.drawing.anatomy import Pose
from edge_fg_tools.fieldguide.drawing.individual import Individual
from edge_fg_tools.fieldguide.drawing.painter import paint_bird
from edge_fg_tools.fieldguide.training.evaluation import (
    evaluate_model,
    write_labels,
    write_preprocess,
)
from edge_fg_tools.fieldguide.training.inputs import normalise, render_inputs

# Far from the image sets the model was trained and measured on (1,000,000 and up).
FRESH_SET = 77


def _digest(pixels: np.ndarray) -> str:
    return hashlib.sha256(pixels.tobytes()).hexdigest()


def test_guide_is_large_enough_and_every_name_is_its_own():
    assert len(SPECIES) >= 24
    assert len(GENERA) >= 6
    assert all(sum(s.genus is genus for s in SPECIES) >= 2 for genus in GENERA)
    assert len(set(LABELS)) == len(SPECIES) + 1
    assert len({species.binomial for species in SPECIES}) == len(SPECIES)
    assert LABELS[BACKGROUND_INDEX] == "background"


def test_siblings_share_shape_and_ground_colours_but_never_all_marks():
    for genus in GENERA:
        marks = [species.marks for species in SPECIES if species.genus is genus]
        assert len(set(marks)) == len(marks)


@pytest.mark.parametrize("index", [0, 17, BACKGROUND_INDEX])
def test_same_seed_gives_same_pixels_and_another_seed_gives_others(index):
    first, second = render_photograph(index, 5), render_photograph(index, 5)
    assert _digest(first) == _digest(second)
    other = render_photograph(index, 6, (first.shape[1], first.shape[0]))
    assert _digest(other) != _digest(first)


def test_photograph_has_the_size_asked_for_and_others_vary():
    assert render_photograph(3, 1, (200, 170)).shape == (170, 200, 3)
    sizes = {render_photograph(3, seed).shape for seed in range(12)}
    assert len(sizes) > 6
    assert all(min(h, w) >= 90 and max(h, w) <= 360 for h, w, _ in sizes)


@pytest.mark.parametrize(
    ("index", "seed", "size", "said"),
    [
        (len(LABELS), 0, None, "not in 0"),
        (-1, 0, None, "not in 0"),
        (0, -3, None, "negative"),
        (0, 0, (20, 200), "too small"),
    ],
)
def test_wrong_arguments_are_named(index, seed, size, said):
    with pytest.raises(UsageError, match=said):
        render_photograph(index, seed, size)


def test_siblings_in_the_same_pose_differ_only_in_small_parts():
    for genus in GENERA:
        kin = [species for species in SPECIES if species.genus is genus]
        images = []
        for species in kin:
            individual = Individual(species, genus.plumage, species.marks, texture_seed=4)
            pose = Pose(tilt=genus.shape.posture)
            images.append(paint_bird(individual, pose, 120.0))
        covered = np.asarray(images[0].mask) > 128
        first = np.asarray(images[0].image, dtype=int)
        for species, image in zip(kin[1:], images[1:], strict=True):
            change = np.abs(np.asarray(image.image, dtype=int) - first).max(axis=2)
            share = (change > 24)[covered].mean()
            assert 0.001 < share < 0.2, (species.common_name, share)


def test_genera_differ_in_outline():
    masks = set()
    for genus in GENERA:
        species = next(s for s in SPECIES if s.genus is genus)
        individual = Individual(species, genus.plumage, species.marks, texture_seed=4)
        masks.add(paint_bird(individual, Pose(tilt=30.0), 80.0).mask.tobytes())
    assert len(masks) == len(GENERA)


def test_image_set_lies_in_folders_by_label_with_a_table(tmp_path):
    table = write_image_set(tmp_path / "set", 1, seed=9)
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert [row["label"] for row in rows] == list(LABELS)
    assert [int(row["index"]) for row in rows] == list(range(len(LABELS)))
    for row in rows:
        with Image.open(table.parent / row["file"]) as image:
            image.load()
            assert image.mode == "RGB"
        assert Path(row["file"]).parent.name == row["label"]


def test_image_sets_of_different_seeds_share_no_photograph_seed():
    places = [(index, number) for index in range(len(LABELS)) for number in range(9)]
    seeds = [{photograph_seed(seed, *place) for place in places} for seed in (1, 2)]
    assert len(seeds[0]) == 9 * len(LABELS)
    assert not seeds[0] & seeds[1]


def test_image_set_refuses_wrong_options(tmp_path):
    with pytest.raises(UsageError, match="at least 1"):
        write_image_set(tmp_path, 0, seed=1)
    with pytest.raises(UsageError, match=r"\.jpg or \.png"):
        write_image_set(tmp_path, 1, seed=1, suffix=".bmp")


@pytest.fixture(scope="module")
def clip():
    return list(render_clip(0))


def test_clip_truth_says_what_frames_show(clip):
    frames = [frame for frame, _ in clip]
    truths = [truth for _, truth in clip]
    assert len(clip) == 300
    assert {frame.shape for frame in frames} == {(360, 640, 3)}
    assert [truth.frame for truth in truths] == list(range(300))
    empty = [number for number, truth in enumerate(truths) if not truth.birds]
    assert len(empty) >= 30
    still = np.median([frames[number] for number in empty[::5]], axis=0).astype(np.int16)
    for frame, truth in clip[::6]:
        different = np.abs(frame.astype(np.int16) - still).max(axis=2) > 40
        inside = np.zeros_like(different)
        for bird in truth.birds:
            x, y, w, h = bird.box_xywh
            assert 0 <= x < x + w <= 640
            assert 0 <= y < y + h <= 360
            assert bird.label == LABELS[bird.index]
            inside[y : y + h, x : x + w] = True
            # A bird entering the image shows little of its outline in its box.
            assert different[y : y + h, x : x + w].mean() > (0.2 if w > 90 else 0.02)
        assert different[~inside].mean() < 0.002


def test_clip_shows_several_species_and_gaps(clip):
    seen = {bird.index for _, truth in clip for bird in truth.birds}
    assert len(seen) >= 5
    assert len({SPECIES[index].genus.name for index in seen}) >= 4
    counts = [len(truth.birds) for _, truth in clip]
    assert {0, 1, 2} <= set(counts)
    assert counts[0] == counts[-1] == 0


def test_clip_repeats_from_its_seed(clip):
    again = render_clip(0)
    for (frame, truth), (other, other_truth) in zip(clip[:25], again, strict=False):
        assert _digest(frame) == _digest(other)
        assert truth == other_truth
    another, _ = next(render_clip(1))
    assert _digest(another) != _digest(clip[0][0])


def test_written_clip_can_be_read_back(tmp_path, clip, monkeypatch):
    cv2 = pytest.importorskip("cv2", reason="the extra opencv is not installed")
    monkeypatch.setattr("edge_fg_tools.fieldguide.clip.render_clip", lambda seed: iter(clip[:45]))
    video, truth = tmp_path / "feeder.mp4", tmp_path / "feeder.jsonl"
    assert write_clip(video, truth) == 45
    capture = cv2.VideoCapture(str(video))
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(15)
    lines = [json.loads(line) for line in truth.read_text().splitlines()]
    for (frame, expected), line in zip(clip[:45], lines, strict=True):
        read, decoded = capture.read()
        assert read
        assert np.abs(decoded.astype(int) - frame).mean() < 12
        assert line["frame"] == expected.frame
        assert [b["box_xywh"] for b in line["birds"]] == [list(b.box_xywh) for b in expected.birds]
    assert not capture.read()[0]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["feeder.jsonl", "feeder.mp4"]


def test_files_beside_the_model_are_those_the_code_writes(tmp_path):
    write_labels(tmp_path / "labels.csv")
    write_preprocess(tmp_path / "preprocess.toml")
    assert fieldguide.labels_path().read_text() == (tmp_path / "labels.csv").read_text()
    shipped = fieldguide.preprocess_path().read_text()
    assert shipped == (tmp_path / "preprocess.toml").read_text()
    rows = list(csv.DictReader(io.StringIO(fieldguide.labels_path().read_text())))
    columns = ["index", "label", "common_name", "class", "order", "family", "genus", "species"]
    assert list(rows[0]) == columns
    assert [row["label"] for row in rows] == list(LABELS)
    assert set(rows[-1].values()) == {str(BACKGROUND_INDEX), "background", ""}
    assert [row["species"] for row in rows[:-1]] == [species.epithet for species in SPECIES]


def test_model_card_says_that_the_birds_are_invented_and_how_well_it_does():
    card = fieldguide.model_card_path().read_text()
    assert "invented" in card
    assert "python -m edge_fg_tools.fieldguide.training --output DIR --seed" in card
    assert all(genus.name in card for genus in GENERA)


def test_model_is_small_and_answers_with_a_logit_per_label():
    onnxruntime = pytest.importorskip("onnxruntime", reason="the extra cpu is not installed")
    path = fieldguide.model_path()
    assert path.stat().st_size <= 4 * 2**20
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (image,), (logits,) = session.get_inputs(), session.get_outputs()
    assert (image.name, image.shape, image.type) == ("image", ["N", 3, 128, 128], "tensor(float)")
    assert (logits.name, logits.shape) == ("logits", ["N", len(LABELS)])
    for count in (1, 3):
        result = session.run(None, {"image": np.zeros((count, 3, 128, 128), np.float32)})[0]
        assert result.shape == (count, len(LABELS))
        assert np.isfinite(result).all()


def test_model_is_a_realistic_mix_with_normalisation_folded():
    onnx = pytest.importorskip("onnx", reason="the extra build is not installed")
    model = onnx.load(str(fieldguide.model_path()))
    onnx.checker.check_model(model)
    assert [(s.domain, s.version) for s in model.opset_import] == [("", 17)]
    kinds = {node.op_type for node in model.graph.node}
    assert {"Conv", "Add", "Mul", "Sigmoid", "MatMul", "Softmax", "Gemm"} <= kinds
    assert "BatchNormalization" not in kinds
    groups = [
        attribute.i
        for node in model.graph.node
        if node.op_type == "Conv"
        for attribute in node.attribute
        if attribute.name == "group"
    ]
    assert max(groups) > 1


def test_model_knows_birds_it_has_never_seen():
    pytest.importorskip("onnxruntime", reason="the extra cpu is not installed")
    pixels, labels = render_inputs(FRESH_SET, 5, processes=1)
    evaluation = evaluate_model(fieldguide.model_path(), pixels, labels)
    assert evaluation.images == 5 * len(LABELS)
    assert evaluation.top1 > 0.85
    assert evaluation.top5 > 0.97


@pytest.mark.slow
def test_rendering_in_two_processes_gives_the_same_pixels():
    alone, labels = render_inputs(3, 1, processes=1)
    shared, same = render_inputs(3, 1, processes=2)
    assert _digest(alone) == _digest(shared)
    assert labels.tolist() == same.tolist() == list(range(len(LABELS)))


def test_normalised_input_undoes_to_the_pixels():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 128, 128, 3), dtype=np.uint8)
    inputs = normalise(pixels)
    assert inputs.shape == (2, 3, 128, 128)
    assert inputs.dtype == np.float32
    mean = np.array([123.675, 116.28, 103.53])
    std = np.array([58.395, 57.12, 57.375])
    assert np.allclose(inputs.transpose(0, 2, 3, 1) * std + mean, pixels, atol=1e-3)
