"""Formats that Pillow needs a plugin for."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from edge_fg.errors import ImageError
from edge_fg.images import read_image
from edge_fg.sources import open_source

SAMPLES = {
    "heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC", "pillow-heif"),
    "heic of several images": (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "HEIC", "pillow-heif"),
    "avif": (b"\0\0\0\x1cftypavif\0\0\0\0avifmif1", "AVIF", "pillow-avif-plugin"),
    "jxl": (b"\0\0\0\x0cJXL \r\n\x87\n\0\0\0\x14ftypjxl ", "JPEG XL", "pillow-jxl-plugin"),
    "bare jxl": (b"\xff\x0a\xfa\x7f\x01\x90\x08\x06", "JPEG XL", "pillow-jxl-plugin"),
}


@pytest.fixture
def no_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    Image.init()
    for kind in ("HEIF", "AVIF", "JXL"):
        monkeypatch.delitem(Image.OPEN, kind, raising=False)
    for module in ("pillow_heif", "pillow_heif.HeifImagePlugin", "pillow_avif", "pillow_jxl"):
        monkeypatch.setitem(__import__("sys").modules, module, None)


@pytest.mark.usefixtures("no_plugins")
@pytest.mark.parametrize("sample", SAMPLES)
@pytest.mark.parametrize("suffix", [".heic", ".jpg"])
def test_a_format_that_needs_a_plugin_names_it(tmp_path: Path, sample: str, suffix: str) -> None:
    start, name, package = SAMPLES[sample]
    path = tmp_path / f"IMG_1{suffix}"  # messengers keep the name and change the suffix
    path.write_bytes(start + bytes(3000))
    with pytest.raises(ImageError) as caught:
        read_image(path)
    assert str(caught.value) == (
        f"{path} is a {name} image: `pip install {package}`, or convert it to JPEG"
    )


@pytest.mark.usefixtures("no_plugins")
def test_a_folder_names_it_for_each_image(tmp_path: Path) -> None:
    for number, suffix in enumerate((".HEIC", ".heif", ".hif", ".jxl", ".avif")):
        (tmp_path / f"{number}{suffix}").write_bytes(SAMPLES["heic"][0] + bytes(100))
    Image.new("RGB", (8, 8)).save(tmp_path / "9.jpg")
    with open_source(tmp_path) as source:
        assert len(list(source)) == 1
    assert [str(error).count("pillow-heif") for error in source.skipped] == [1] * 5


def test_an_installed_plugin_is_used_and_damage_is_not_called_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.init()
    for registry in ("OPEN", "MIME", "EXTENSION"):
        monkeypatch.setattr(Image, registry, dict(getattr(Image, registry)))
    monkeypatch.setattr(Image, "ID", [kind for kind in Image.ID if kind != "JXL"])
    Image.OPEN.pop("JXL", None)
    (tmp_path / "pillow_jxl.py").write_text(
        "from PIL import Image, ImageFile\n"
        "class File(ImageFile.ImageFile):\n"
        "    format = 'JXL'\n"
        "    def _open(self):\n"
        "        if self.fp.read(40)[-1:] != b'!':\n"
        "            raise SyntaxError('damaged')\n"
        "        self._size, self._mode = (2, 1), 'RGB'\n"
        "        self.tile = [('raw', (0, 0, 2, 1), 40, ('RGB', 0, 1))]\n"
        "Image.register_open('JXL', File, lambda start: start[4:7] == b'JXL')\n"
    )
    monkeypatch.delitem(__import__("sys").modules, "pillow_jxl", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    start = SAMPLES["jxl"][0]
    (tmp_path / "a.jxl").write_bytes(start.ljust(39) + b"!" + bytes([1, 2, 3, 4, 5, 6]))
    assert read_image(tmp_path / "a.jxl").tolist() == [[[3, 2, 1], [6, 5, 4]]]
    (tmp_path / "a.jxl").write_bytes(start.ljust(60))
    with pytest.raises(ImageError, match=r"a\.jxl is a JPEG XL image that is damaged"):
        read_image(tmp_path / "a.jxl")
