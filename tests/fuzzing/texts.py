"""Spoilt files and words of people: labels, preprocessing, lists of images, sources, settings."""

from __future__ import annotations

from pathlib import Path
from random import Random

from edge_fg.label_files import parse_labels, read_labels
from edge_fg.pipeline.policy import parse_policy
from edge_fg.preprocess import PreprocessSpec, load_preprocess
from edge_fg.sources import open_source, parse_source, redact
from edge_fg_calibration import Budget
from edge_fg_calibration.data.image_set import read_image_set, resolve_labels
from fuzzing.mutations import spoil_text, text_bytes, words

LABELS = {
    ".txt": [
        "red kite\nrobin\nwren\n",
        "0 red kite\n1 robin\n2 wren\n",
        "0: red\n2: wren\n1: robin\n",
        "Athene noctua (Little Owl)\nParus major (Great Tit)\nbackground\n",
        "u1;aves;strigiformes;strigidae;athene;noctua;little owl\nu2;aves;;;;;bird\n",
    ],
    ".csv": [
        "index,label,genus,species\n0,owl,Athene,noctua\n1,tit,Parus,major\n2,background,,\n",
        "label\nowl\ntit\n",
        'id;name\n1;"tit, great"\n0;owl\n',
        "class_id\tscientific_name\n0\tParus major\n1\tTurdus merula\n",
    ],
    ".json": [
        '["owl", "tit", "wren"]',
        '{"0": "owl", "1": "tit"}',
        '{"owl": 0, "tit": 1}',
        '{"id2label": {"0": "owl", "1": "tit"}, "label2id": {"owl": 0}}',
        '{"0": ["n01", "owl"], "1": ["n02", "tit"]}',
        '[{"id": 0, "name": "owl"}, {"id": 1, "name": "tit"}]',
    ],
    ".yaml": [
        "path: x\nnames:\n  0: owl\n  1: 'great tit'\n",
        'names: [owl, "tit", wren]\nnc: 3\n',
    ],
    ".pbtxt": ["item {\n  id: 1\n  name: \"owl\"\n}\nitem {\n  id: 2\n  display_name: 'tit'\n}\n"],
}
LABEL_TOKENS = words(
    """, ; : | # [ ] { } 0 1 index label name id: 1: item { - names: names: !!python/object
&a *a ? id2label \\u0000 "" ''""",
    "\n",
    "\t",
    '"',
    "\n\n",
    " - ",
)

PREPROCESS = [
    """[preprocess]
color = "rgb"
resize = { mode = "squash", size = [224, 224], filter = "box" }
mean = [128, 128, 128]
std = [64, 64, 64.5]
layout = "nchw"
dtype = "float32"
""",
    """[preprocess]
resize = { mode = "shortest-side+center-crop", size = 256, antialias = false }
crop = [224, 224]
""",
    "preprocess.resize = { mode = 'letterbox', size = [64, 64], fill = 114 }\n",
]
TOML_TOKENS = words(
    """[ ] { } = . , # " ' - + [[ ]] ''' "" nan inf 1e400 0x10 true 1979-05-27T07:32:00Z size
[preprocess] resize. mean= 99999999999999""",
    "\n",
)

IMAGE_LISTS = [
    "file,label\na.jpg,owl\nb/c.png,tit\n",
    "file,index,label\na.jpg,0,\nb/c.png,1,tit\n",
    'label,file\n"owl","a.jpg"\n,b/c.png\n',
]
LIST_TOKENS = words(""", " ; / file index label .. a.jpg b/c.png C:\\a.jpg -1 ٣""", "\n", "\t")

SOURCES = words("""rtsp://user:secret@10.0.0.9:554/live?channel=1#timeout=5 http://cam/video.mjpg -
0 csi://0?flip=rotate-180&width=1280&height=720&fps=30 /dev/video0?codec=mjpeg *.jpg b/**/*.png .
a.jpg v4l2:///dev/v4l/by-id/usb-Cam-video-index0 file:///tmp/a%20b.jpg a.jpg?flip=vertical
fieldguide://0 https://[::1]:8443/x#password_env=CAM""")
SOURCE_TOKENS = words(""": / ? # @ & = % [ ] * . ~ - 0 :// rtsp:// file:// #timeout=
grey_range=0-4095 user:pw@ %ff raw=1 reconnect=none buffer=64 width= [::1] **""")

POLICIES = ["latest", "latest(max_age=0.5)", "every", "queue(8,drop=newest)", "rate(5)"]
BUDGETS = ["agreement=0.97", "mean_kl=0.01", "top1_drop=0.005"]
SETTING_TOKENS = words("""( ) = , . - + e _ drop= max_age= nan inf 1e309 queue rate \0""")


def run_labels(random: Random, folder: Path) -> None:
    """Labels are read as what they say, and come back the same from a bundle's file."""
    suffix = random.choice(list(LABELS))
    text = spoil_text(random, random.choice(LABELS[suffix]), LABEL_TOKENS)
    suffix = random.choice([suffix, suffix, suffix, "", *LABELS])
    path = _written(folder / f"labels{suffix}", text_bytes(random, text))
    labels = read_labels(path)
    assert [label.class_id for label in labels] == list(range(len(labels)))
    assert parse_labels(labels.to_csv().encode()) == labels
    assert all(i in labels.find(name) for i, name in enumerate(labels.names)), "no longer found"


def run_preprocess(random: Random, folder: Path) -> None:
    text = spoil_text(random, random.choice(PREPROCESS), TOML_TOKENS)
    spec = load_preprocess(_written(folder / "p.toml", text_bytes(random, text)))
    assert isinstance(spec, PreprocessSpec)
    assert all(side > 0 for side in spec.tensor_shape)


def run_image_list(random: Random, folder: Path) -> None:
    (folder / "b").mkdir()
    for name in ("a.jpg", "b/c.png"):
        (folder / name).touch()
    text = spoil_text(random, random.choice(IMAGE_LISTS), LIST_TOKENS)
    found = read_image_set(_written(folder / "images.csv", text_bytes(random, text)))
    assert all(item.path.resolve().is_relative_to(folder.resolve()) for item in found.items)
    resolve_labels(found, parse_labels(b"owl\ntit\n"))


def run_source(random: Random, folder: Path) -> None:
    """A source is named without its secrets; files are looked for where the case is."""
    (folder / "a.jpg").write_bytes(b"\xff\xd8\xff\xd9")
    text = spoil_text(random, random.choice(SOURCES), SOURCE_TOKENS)
    assert redact(redact(text)) == redact(text)
    found = parse_source(text)
    inside = not str(found.target).startswith(("/", "~")) and ".." not in str(found.target)
    if found.kind in ("image", "directory", "glob", "video") and inside:
        with open_source(text) as source:
            next(source, None)


def run_setting(random: Random, folder: Path) -> None:
    if random.random() < 0.5:
        policy = parse_policy(spoil_text(random, random.choice(POLICIES), SETTING_TOKENS))
        assert parse_policy(str(policy)) == policy
    else:
        Budget.parse([spoil_text(random, text, SETTING_TOKENS) for text in BUDGETS])


def _written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path
