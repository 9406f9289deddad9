"""Bundles: whole or not at all, and nothing hostile gets in."""

from __future__ import annotations

import fcntl
import io
import json
import os
import shutil
import stat
import time
import tracemalloc
import zipfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_fg import Bundle
from edge_fg.bundle.manifest import parse_manifest
from edge_fg.bundle.writer import check_output, write_bundle
from edge_fg.errors import (
    BundleError,
    BundleFormatError,
    BundleIntegrityError,
    BundleVersionError,
    OutputError,
    UnsafeBundleError,
)
from support.properties import examples


def edit(bundle: Path, change) -> None:
    path = bundle / "bundle.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def zip_of(bundle: Path, target: Path) -> Path:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(bundle.iterdir()):
            archive.write(file, file.name)
    return target


def test_a_written_bundle_verifies_and_reads(tiny_bundle: Path, tiny_model: bytes):
    bundle = Bundle(tiny_bundle)
    bundle.verify()
    assert bundle.graph("fp32") == tiny_model
    assert bundle.labels().names[0] == "Burrowing Owl"
    document = json.loads((tiny_bundle / "bundle.json").read_text())
    assert {"schema", "name", "input", "outputs", "preprocess", "labels", "variants"} <= set(
        document
    )
    assert {"calibration", "provenance"} <= set(document)


def test_a_zip_is_the_same_bundle(tiny_bundle: Path, tmp_path: Path):
    zipped = Bundle(zip_of(tiny_bundle, tmp_path / "b.zip"))
    zipped.verify()
    assert zipped.manifest == Bundle(tiny_bundle).manifest


def test_writing_a_zip_twice_gives_the_same_bytes(tiny_bundle: Path, tmp_path: Path):
    bundle = Bundle(tiny_bundle)
    files = {name: bundle.read(name) for name in bundle.manifest.files}
    for name in ("a.zip", "b.zip"):
        write_bundle(tmp_path / name, files, lambda entries: bundle.manifest)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


@examples(40)
@given(st.data())
def test_any_flipped_byte_is_found(tiny_bundle: Path, data):
    name = data.draw(st.sampled_from(["model.fp32.onnx", "labels.csv"]))
    path = tiny_bundle / name
    content = bytearray(path.read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] ^= 1 << data.draw(st.integers(0, 7))
    original = path.read_bytes()
    path.write_bytes(content)
    try:
        with pytest.raises(BundleIntegrityError, match=name):
            Bundle(tiny_bundle).verify()
    finally:
        path.write_bytes(original)


@examples(200)
@given(st.data())
def test_any_damage_to_a_zip_is_found_or_harmless(tiny_bundle: Path, tmp_path: Path, data):
    path = zip_of(tiny_bundle, tmp_path / "b.zip")
    content = bytearray(path.read_bytes())
    whole = Bundle(path).graph("fp32")
    # Headers stand at both ends, and they are what the parser believes.
    ends = st.integers(0, 60) | st.integers(len(content) - 300, len(content) - 1)
    for place in data.draw(st.lists(ends | st.integers(0, len(content) - 1), max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    del content[data.draw(st.just(len(content)) | st.integers(0, len(content))) :]
    path.write_bytes(content)
    try:
        assert Bundle(path).graph("fp32") == whole
    except BundleError as error:
        assert str(path) in str(error)


@pytest.mark.parametrize("method", [1, 8, 9, 12, 14, 93, 99])
def test_every_other_way_of_packing_is_refused(tiny_bundle: Path, tmp_path: Path, method: int):
    path = zip_of(tiny_bundle, tmp_path / "b.zip")
    content = bytearray(path.read_bytes())
    for at in [i for i in range(len(content)) if content.startswith(b"PK\x01\x02", i)]:
        content[at + 10 : at + 12] = method.to_bytes(2, "little")
    path.write_bytes(content)
    if method == zipfile.ZIP_DEFLATED:
        Bundle(path).verify()
    else:
        with pytest.raises(UnsafeBundleError, match=f"method {method}: pack it with deflate"):
            Bundle(path)


def test_a_name_that_is_not_utf8(tiny_bundle: Path, tmp_path: Path):
    path = zip_of(tiny_bundle, tmp_path / "b.zip")
    content = path.read_bytes()
    at = content.index(b"PK\x01\x02")
    damaged = bytearray(content)
    damaged[at + 9] |= 8  # bit 11 of the flags: the name is UTF-8
    damaged[at + 46] = 0xFF
    path.write_bytes(damaged)
    with pytest.raises(BundleIntegrityError, match="damaged"):
        Bundle(path)


def test_a_newer_schema_asks_for_an_update(tiny_bundle: Path):
    edit(tiny_bundle, lambda document: document.update(schema=2, something_new=True))
    with pytest.raises(BundleVersionError, match="update edge-fg"):
        Bundle(tiny_bundle)


@pytest.mark.parametrize("name", ["../labels.csv", "/etc/passwd", "a/b", ".hidden", "x\n", ""])
def test_names_outside_are_refused(tiny_bundle: Path, name: str):
    edit(tiny_bundle, lambda document: document["labels"].update(file=name))
    with pytest.raises(BundleFormatError, match=r"bundle\.json"):
        Bundle(tiny_bundle)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(extra=1),
        lambda d: d.pop("preprocess"),
        lambda d: d.update(variants={}),
        lambda d: d["variants"].update(int4=d["variants"]["fp32"]),
        lambda d: d["labels"].update(count=5),
        lambda d: d["input"].update(shape=["N", 3, 16, 17]),
        lambda d: d["input"].update(dtype="float16"),
        lambda d: d["variants"]["fp32"].update(sha256="0" * 64),
        lambda d: d["outputs"][0].update(kind="boxes"),
        lambda d: d["outputs"][0].update(kind="embedding"),
        lambda d: d["files"].pop("labels.csv"),
        lambda d: d["files"].update({"bundle.json": d["files"]["labels.csv"]}),
        lambda d: d.update(schema=0),
        lambda d: d.update(schema="1"),
        lambda d: d["preprocess"].update(mean=[1, 2]),
        lambda d: d.update(name="owls\x1b[2J"),
        lambda d: d.update({"\x1b[2J": 1}),
    ],
)
def test_a_manifest_that_breaks_the_schema(tiny_bundle: Path, change):
    edit(tiny_bundle, change)
    with pytest.raises(BundleFormatError) as caught:
        Bundle(tiny_bundle)
    assert str(caught.value).isprintable()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_bundles(tiny_bundle: Path, tmp_path: Path):
    zipped = zip_of(tiny_bundle, tmp_path / "b.zip")
    for path in (zipped, tiny_bundle / "bundle.json", tiny_bundle):
        path.chmod(0)
    try:
        for path in (zipped, tiny_bundle, tiny_bundle / "below"):
            with pytest.raises(BundleError, match="Permission denied"):
                Bundle(path)
    finally:
        tiny_bundle.chmod(0o700)


@given(
    st.binary(max_size=200)
    | st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5) | st.integers(),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
        ),
    ).map(lambda value: json.dumps(value).encode())
)
def test_any_manifest_is_read_or_refused(data: bytes):
    with pytest.raises(BundleError):
        parse_manifest(data, where="x")


def test_links_and_fifos_are_refused(tiny_bundle: Path, tmp_path: Path):
    secret = tmp_path / "secret.csv"
    shutil.copy(tiny_bundle / "labels.csv", secret)
    (tiny_bundle / "labels.csv").unlink()
    (tiny_bundle / "labels.csv").symlink_to(secret)
    with pytest.raises(UnsafeBundleError, match="link"):
        Bundle(tiny_bundle).labels()
    (tiny_bundle / "labels.csv").unlink()
    os.mkfifo(tiny_bundle / "labels.csv")
    with pytest.raises(UnsafeBundleError, match="plain file"):
        Bundle(tiny_bundle).labels()


def test_missing_and_extra_files(tiny_bundle: Path):
    (tiny_bundle / "extra").write_text("x")
    with pytest.raises(BundleIntegrityError, match="extra"):
        Bundle(tiny_bundle).verify()
    (tiny_bundle / "model.fp32.onnx").unlink()
    with pytest.raises(BundleIntegrityError, match=r"model\.fp32\.onnx"):
        Bundle(tiny_bundle).graph("fp32")


def hostile_zip(path: Path, *members: tuple[zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for info, data in members:
            archive.writestr(info, data)
    return path


def test_hostile_zips(tmp_path: Path):
    link = zipfile.ZipInfo("bundle.json")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    for name, members in {
        "up.zip": [(zipfile.ZipInfo("../bundle.json"), b"{}")],
        "absolute.zip": [(zipfile.ZipInfo("/bundle.json"), b"{}")],
        "link.zip": [(link, b"/etc/passwd")],
        "many.zip": [(zipfile.ZipInfo(f"f{i}"), b"") for i in range(300)],
    }.items():
        with pytest.raises(UnsafeBundleError):
            Bundle(hostile_zip(tmp_path / name, *members))


def test_a_zip_bomb_is_not_unpacked(tiny_bundle: Path, tmp_path: Path):
    (tiny_bundle / "labels.csv").write_bytes(b"\0" * (20 << 20))
    path = zip_of(tiny_bundle, tmp_path / "bomb.zip")
    assert path.stat().st_size < 1 << 20
    with pytest.raises(UnsafeBundleError, match=r"labels\.csv.* to 20971520 bytes: refused"):
        Bundle(path)


def test_a_manifest_does_not_choose_how_much_is_read(tiny_bundle: Path, tmp_path: Path):
    graph = zipfile.ZipInfo("model.fp32.onnx")
    members = [(graph, b"\0" * (1 << 20)), (zipfile.ZipInfo("bundle.json"), b"")]

    def claim(document) -> None:
        document["files"]["model.fp32.onnx"]["bytes"] = 1 << 32

    edit(tiny_bundle, claim)
    members[1] = (members[1][0], (tiny_bundle / "bundle.json").read_bytes())
    tracemalloc.start()
    try:
        for bundle in (tiny_bundle, hostile_zip(tmp_path / "b.zip", *members)):
            with pytest.raises(BundleIntegrityError, match=r"model\.fp32\.onnx"):
                Bundle(bundle).graph("fp32")
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()


def test_a_size_beyond_the_archive_is_a_cut_archive(tiny_bundle: Path, tmp_path: Path):
    path = zip_of(tiny_bundle, tmp_path / "b.zip")
    content = bytearray(path.read_bytes())
    at = content.index(b"PK\x01\x02")
    # Both sizes: with the packed one alone believed, the ratio would look sane.
    content[at + 20 : at + 28] = (1 << 30).to_bytes(4, "little") + (3 << 30).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(BundleIntegrityError, match="cut short"):
        Bundle(path)


def test_a_giant_that_is_no_model_is_refused(tiny_bundle: Path):
    edit(tiny_bundle, lambda d: d["files"]["labels.csv"].update(bytes=(64 << 20) + 1))
    with pytest.raises(UnsafeBundleError, match=r"labels\.csv.*more than 64 MB"):
        Bundle(tiny_bundle)


def test_what_is_no_bundle(tmp_path: Path):
    with pytest.raises(BundleError, match="no bundle at"):
        Bundle(tmp_path / "none")
    with pytest.raises(BundleFormatError, match=r"no bundle\.json"):
        Bundle(tmp_path)
    for path in ("null\0character", "a" * 5000):
        with pytest.raises(BundleError, match="can't read a bundle"):
            Bundle(path)
    with pytest.raises(BundleFormatError, match="neither"):
        Bundle("/dev/zero")
    (tmp_path / "bundle.json").mkdir()
    with pytest.raises(UnsafeBundleError, match="plain file"):
        Bundle(tmp_path)
    (tmp_path / "text").write_text("hello")
    with pytest.raises(BundleError, match="no bundle at"):
        Bundle(tmp_path / "text" / "below")
    with pytest.raises(BundleFormatError, match="neither a folder nor a zip"):
        Bundle(tmp_path / "text")


def test_a_missing_variant_names_those_there(tiny_bundle: Path):
    with pytest.raises(BundleError, match=r"it has fp32.*--precision int8"):
        Bundle(tiny_bundle).graph("int8")


def test_a_failed_write_leaves_the_old_bundle(tiny_bundle: Path, monkeypatch):
    before = (tiny_bundle / "bundle.json").read_bytes()
    real_fsync = os.fsync
    calls = iter(range(100))

    def full_disk(descriptor: int) -> None:
        if next(calls) == 2:
            raise OSError(28, "No space left on device")
        real_fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OutputError, match="No space left"):
        write_bundle(
            tiny_bundle, {"a": b"1", "b": b"2"}, lambda entries: Bundle(tiny_bundle).manifest
        )
    assert (tiny_bundle / "bundle.json").read_bytes() == before
    assert [p.name for p in tiny_bundle.parent.iterdir()] == [tiny_bundle.name]


def test_a_new_bundle_replaces_the_old_whole(tiny_bundle: Path):
    bundle = Bundle(tiny_bundle)
    files = {name: bundle.read(name) for name in bundle.manifest.files}
    write_bundle(tiny_bundle, files, lambda entries: bundle.manifest)
    Bundle(tiny_bundle).verify()
    assert [p.name for p in tiny_bundle.parent.iterdir()] == [tiny_bundle.name]


@pytest.mark.parametrize("name", ["tiny.edgefg", "tiny.zip"])
def test_what_killed_builds_left_is_removed(tiny_bundle: Path, name: str):
    """But not what another build is at, nor an older bundle that could not be put back."""
    made = {
        kind: tiny_bundle.parent / f".{name}.{kind}"
        for kind in ("abandond", "youngone", "heldheld", "oldinsid", "notours")
    }
    for path in made.values():
        (path / ("old" if "oldinsid" in path.name else "new")).mkdir(parents=True)
        if path != made["youngone"]:
            os.utime(path, (time.time() - 3600,) * 2)
    half = tiny_bundle.parent / f".{name}.zip_half"
    half.write_bytes(b"half a zip")
    os.utime(half, (time.time() - 3600,) * 2)
    held = os.open(made["heldheld"], os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    bundle = Bundle(tiny_bundle)
    files = {one: bundle.read(one) for one in bundle.manifest.files}
    write_bundle(tiny_bundle.with_name(name), files, lambda entries: bundle.manifest)
    os.close(held)
    left = {kind for kind, path in made.items() if path.exists()}
    assert left == {"youngone", "heldheld", "oldinsid", "notours"}
    assert not half.exists()
    Bundle(tiny_bundle.with_name(name)).verify()


def test_a_folder_with_anything_else_is_not_replaced(tiny_bundle: Path, tmp_path: Path):
    (tiny_bundle / "notes.txt").write_text("precious")
    with pytest.raises(OutputError, match=r"notes\.txt"):
        check_output(tiny_bundle)
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "bundle.json").write_text("{}")
    with pytest.raises(OutputError, match="not a bundle"):
        check_output(tmp_path / "web")
    (tmp_path / "link").symlink_to(tiny_bundle)
    with pytest.raises(OutputError, match="link"):
        check_output(tmp_path / "link")


def test_a_manifest_that_could_not_be_read_is_not_written(tiny_bundle: Path, tmp_path: Path):
    bundle = Bundle(tiny_bundle)
    files = {name: bundle.read(name) for name in bundle.manifest.files}
    nameless = msgspec.structs.replace(bundle.manifest, name="")
    with pytest.raises(BundleFormatError, match="name"):
        write_bundle(tmp_path / "new.edgefg", files, lambda entries: nameless)
    assert not (tmp_path / "new.edgefg").exists()


def test_outputs_that_can_not_be_written(tmp_path: Path):
    with pytest.raises(OutputError, match="no folder"):
        check_output(tmp_path / "none" / "b.edgefg")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "holiday.jpg").write_text("precious")
    with pytest.raises(OutputError, match="not a bundle"):
        check_output(tmp_path / "photos")
    (tmp_path / "thesis.zip").write_bytes(b"PK but not really")
    with pytest.raises(OutputError, match="not a bundle"):
        check_output(tmp_path / "thesis.zip")
    assert io.BytesIO((tmp_path / "thesis.zip").read_bytes()).read(2) == b"PK"
