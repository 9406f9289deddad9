"""The names of classes: from the model itself, of two classes, and as image sets write them."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

import edge_fg
from edge_fg.errors import UsageError
from edge_fg.label_files import parse_labels
from edge_fg_calibration import read_image_set, resolve_labels

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from edge_fg_tools.building.class_labels import class_labels  # noqa: E402
from edge_fg_tools.cli.run_output import VisitCounter, printed_lines  # noqa: E402
from support import sink_results  # noqa: E402

NAMES = ["Tit, Great", 'owl\'s "kin"', "Eule\u00a0ä", "background"]
PRINTED = dict(enumerate(NAMES))
BY_NAME = {name: i for i, name in reversed(list(enumerate(NAMES)))}
SHUFFLED = dict(reversed(list(PRINTED.items())))


def model_with(**properties: str):
    model = onnx.ModelProto()
    onnx.helper.set_model_props(model, properties)
    return model


@pytest.mark.parametrize(
    "properties",
    [
        {"names": str(PRINTED), "task": "classify"},  # Ultralytics
        {"names": str(SHUFFLED)},
        {"names": str(NAMES)},
        {"classes": str(tuple(NAMES))},
        {"class_to_idx": str(BY_NAME)},
        {"id2label": json.dumps({str(i): name for i, name in SHUFFLED.items()})},
        {"label2id": json.dumps(BY_NAME)},
        {"Class_Names": json.dumps(NAMES)},
        {"class_names": json.dumps(NAMES, ensure_ascii=False)},
        {"labels": "\n".join(NAMES) + "\n"},
        {"class_labels": "\n".join(f"{i}: {name}" for i, name in SHUFFLED.items())},
        # What is no list of four names doesn't count.
        {"names": str(NAMES), "labels": "those of the garden", "classes": "4"},
        {"names": str(NAMES), "class_names": json.dumps(NAMES)},
    ],
    ids=str,
)
def test_the_names_of_a_models_metadata_are_read(properties: dict[str, str]):
    assert class_labels(None, model_with(**properties), 4).names == NAMES


def test_names_between_commas_are_read():
    assert class_labels(None, model_with(classes="cat, dog ,owl"), 3).names == ["cat", "dog", "owl"]
    numbered = model_with(class_labels="2:owl,0:cat,1:dog")
    assert class_labels(None, numbered, 3).names == ["cat", "dog", "owl"]


@pytest.mark.parametrize(
    ("properties", "said"),
    [
        ({}, "hold none"),
        ({"author": "['a', 'b']"}, "hold none"),
        ({"names": str(NAMES[:3])}, "`names` has 3 names"),
        ({"names": "{0: 'a', 0: 'b', 1: 'c', 2: 'd', 3: 'e', 5: 'f'}"}, "4 is missing"),
        ({"names": str(NAMES), "labels": str(NAMES[::-1])}, "`names` and `labels` differ"),
        ({"names": "{0: 'a', 1: 'b', 2: __import__('os').getcwd(), 3: 'd'}"}, "JSON"),
        ({"names": "[" * 100_000}, "nested"),
        ({"names": "(" * 100_000}, "JSON"),
        ({"names": "[1" + " " * 200_000}, "JSON"),
        ({"names": "a," * 3_000_000}, "longer than 4 MB"),
        ({"names": "[" + "'a'," * 100_000}, "JSON"),
        ({"names": "['a', '\\x1b[2J', 'c', 'd']"}, "control character"),
        ({"names": "{'a', 'b', 'c', 'd'}"}, "no list or mapping"),
        ({"names": r"['a', 'b', 'c', '\xq']"}, "no list or mapping"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_metadata_without_the_names_ask_for_a_file(properties: dict[str, str], said: str):
    with pytest.raises(UsageError, match=r"4 classes\? Give --labels") as caught:
        class_labels(None, model_with(**properties), 4)
    assert said in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_a_file_in_another_order_than_the_metadata_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    path, model = tmp_path / "labels.txt", model_with(names="['owl', 'tit', 'gull']")
    for text, warned in {
        "tit\nowl\ngull\n": True,
        "owl\ntit\ngull\n": False,
        "a\nb\nc\n": False,
    }.items():
        caplog.clear()
        path.write_text(text)
        with caplog.at_level(logging.WARNING, "edge_fg"):
            assert class_labels(path, model, 3).names == text.split()
        assert ("in another order" in caplog.text) == warned


def test_a_build_takes_the_names_of_the_model(workshop, edge_fg_command, tiny_model):
    arguments = workshop.arguments("--precision", "fp32")
    place = arguments.index("--labels")
    del arguments[place : place + 2]
    missing = edge_fg_command(*arguments)
    assert missing.code == 2
    assert "Give --labels" in missing.complaint
    model = onnx.ModelProto.FromString(tiny_model)
    onnx.helper.set_model_props(model, {"names": str(PRINTED)})
    workshop.model.write_bytes(model.SerializeToString())
    done = edge_fg_command(*arguments)
    assert done.code == 0, done.err
    assert edge_fg.Bundle(workshop.folder / "b.edgefg").labels().names == NAMES
    seen = edge_fg_command("inspect", workshop.model)
    assert "in its metadata, `names`: such as Tit, Great" in seen.out


@pytest.fixture
def image_set(tmp_path: Path) -> Callable[..., Path]:
    """Make a set with one small image in each of some folders, all different."""

    def make(*folders: str, images: int = 1) -> Path:
        root = tmp_path / "set"
        for place, name in enumerate(folders):
            (root / name).mkdir(parents=True)
            for k in range(images):
                colour = (40 * place % 256, 80 * k % 256, 3 * k + place)
                gradient = Image.linear_gradient("L").resize((40, 40)).rotate(37 * k + 11 * place)
                image = Image.merge("RGB", [gradient.point(lambda v, c=c: v ^ c) for c in colour])
                image.save(root / name / f"{place}-{k}.png")
        return root

    return make


BIRDS = (
    "index,label,common_name,genus,species\n0,amsel,Eurasian Blackbird,Turdus,merula\n"
    "1,Kohlmeise,Great Tit,Parus,major\n2,Crane,,,\n3,crane,,,\n4,heron,,Ardea,\n"
    "5,b\u00e4r,,Ursus,\n6,Great Tit,,,\n7,wren,Winter wren,,\n8,zaunk,winter  wren,,\n"
    "9,Black-footed Albatross,,,\n10,Steller\u2019s Jay,,,\n11,Owl / Hawk,,,\n"
)
FOUND = {
    "amsel": 0,
    "AMSEL": 0,
    "Eurasian Blackbird": 0,
    "eurasian_blackbird": 0,
    "Turdus merula": 0,
    "turdus_merula": 0,
    "Parus major": 1,
    "Great Tit": 6,  # a label comes before a common name
    "Crane": 2,
    "crane": 3,
    "CRANE": None,
    "Ardea": 4,
    "Turdus merula (Eurasian Blackbird)": 0,
    "Great Tit (Parus major)": 1,
    "black_footed_albatross": 9,
    "Black-Footed Albatross": 9,
    "Stellers_Jay": 10,
    "Owl_Hawk": 11,
    "B\u00c4R": 5,
    "ba\u0308r": 5,  # as macOS writes it
    "Winter wren": None,
    "stork": None,
    "7": 7,
    "003": 3,
}


def test_a_set_may_use_any_name_of_a_class(image_set, tmp_path: Path):
    labels = parse_labels(BIRDS.encode())
    root = image_set(*FOUND)
    found, unclear = resolve_labels(read_image_set(root), labels)
    assert {item.label: item.index for item in found.items} == FOUND
    assert unclear == tuple(sorted(name for name, index in FOUND.items() if index is None))
    rows = "".join(f'{path.relative_to(root)},"{path.parent.name}"\n' for path in root.glob("*/*"))
    (root / "all.csv").write_text("file,label\n" + rows)
    listed, _ = resolve_labels(read_image_set(root / "all.csv"), labels)
    assert {item.label: item.index for item in listed.items} == FOUND


def test_a_label_that_contradicts_its_index_is_warned_of(
    image_set, edge_fg_command, workshop, tiny_bundle
):
    root = image_set("a", "b")
    rows = "file,label,index\na/0-0.png,{},1\nb/1-0.png,,2\n"
    names = edge_fg.Bundle(tiny_bundle).labels().names
    for label, warned in ((names[0], True), (names[1], False), ("stork", False)):
        (root / "x.csv").write_text(rows.format(label))
        done = edge_fg_command("evaluate", tiny_bundle, root / "x.csv", "--format", "json")
        assert done.code == 0, done.err
        assert [one["index"] for one in json.loads(done.out)["per_class"]] == [1, 2]
        assert ("different classes in 1 of its rows" in done.err) == warned


@pytest.mark.parametrize(
    ("names", "folders"),
    [
        # A label that is a number: then no number is an index.
        (["1", "2", "3"], {"1": 0, "3": 2, "0": None}),
        # Folders that count from 1, or are years, are no indices.
        (["a", "b", "c"], {"1": None, "2": None, "3": None, "a": 0}),
        (["a", "b", "c"], {"2019": None, "2": None}),
        (["a", "b", "c"], {"0": 0, "2": 2, "b": 1}),
    ],
)
def test_numbers_are_indices_only_where_they_can_be(image_set, names, folders):
    labels = parse_labels(("label\n" + "\n".join(names)).encode())
    found, _ = resolve_labels(read_image_set(image_set(*folders)), labels)
    assert {item.label: item.index for item in found.items} == folders


def test_classes_of_one_name_stay_apart(workshop, edge_fg_command, image_set):
    workshop.labels.write_text("crane\nheron\nCrane\ncrane\n")
    images = image_set("crane", "heron", "Crane", "0", "3", images=4)
    done = edge_fg_command(*workshop.arguments("--precision", "fp32", calibration=images))
    assert done.code == 0, done.err
    assert "`crane` may be class 0 or 3: its images count for agreement" in done.err
    assert "classes of one name: 0 `crane` and 2 `Crane` and 3 `crane`" in done.err
    bundle = workshop.folder / "b.edgefg"
    report = json.loads((bundle / "report.json").read_text())
    assert any("classes of one name" in warning for warning in report["model"]["warnings"])
    assert edge_fg.Bundle(bundle).labels().names == ["crane", "heron", "Crane", "crane"]
    told = edge_fg_command("evaluate", bundle, images, "--format", "json")
    document = json.loads(told.out)
    assert (document["images"], document["labelled"]) == (20, 16)
    classes = [(one["index"], one["label"], one["images"]) for one in document["per_class"]]
    assert classes == [(0, "crane", 4), (1, "heron", 4), (2, "Crane", 4), (3, "crane", 4)]
    assert "`crane` may be class 0 or 3" in told.err
    text = edge_fg_command("evaluate", bundle, images).out
    assert all(f"of 4    {name}\n" in text for name in ("crane [0]", "Crane [2]", "crane [3]"))


def test_visits_of_classes_of_one_name_are_counted_apart():
    counter = VisitCounter(parse_labels(b"crane\nheron\ncrane").shown)
    event = sink_results.event(label="crane")
    events = tuple(dataclasses.replace(event, class_id=i) for i in (0, 2, 2, 1, None))
    counter(sink_results.result(events=events))
    arguments = SimpleNamespace(format="text", min_confidence=0.0)
    lines = printed_lines(arguments, "visits", parse_labels(b"crane\nheron\ncrane").shown, [Path()])
    told = lines(sink_results.result(events=events[:2]))
    assert ["crane [0]" in told[0], "crane [2]" in told[1]] == [True, True]
    assert counter.visits == {"crane [0]": 1, "crane [2]": 2, "heron": 1, None: 1}
