"""Preprocessing: the pixels that the model was trained on, from Pillow's own mouth."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edge_fg import PreprocessSpec
from edge_fg.errors import ImageError, PreprocessError
from edge_fg.preprocess import CpuPreprocessor, Resize, load_preprocess, parse_preprocess, presets
from edge_fg.preprocess.geometry import MAX_RESIZED_PIXELS, geometry
from edge_fg.preprocess.resample import resample
from edge_fg.preprocess.spec import with_input
from edge_fg.preprocess.spec_file import TAKES
from support.properties import examples

FILTERS = ["bilinear", "bicubic", "lanczos", "box"]


def random_frame(height: int, width: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def pillow_resize(rgb: np.ndarray, height: int, width: int, name: str) -> np.ndarray:
    kernel = getattr(Image.Resampling, name.upper())
    image = Image.fromarray(rgb)
    return np.asarray(image.resize((width, image.height), kernel).resize((width, height), kernel))


def torchvision_center_crop(rgb: np.ndarray, height: int, width: int) -> np.ndarray:
    top = round((rgb.shape[0] - height) / 2.0)
    left = round((rgb.shape[1] - width) / 2.0)
    return rgb[top : top + height, left : left + width]


sides = st.integers(1, 90)
seeds = st.integers(0, 1000)


@examples(60)
@given(sides, sides, sides, sides, st.sampled_from(FILTERS), seeds)
def test_squash_gives_pillows_pixels(height, width, out_height, out_width, name, seed):
    frame = random_frame(height, width, seed)
    spec = PreprocessSpec(Resize("squash", (out_height, out_width), name))
    expected = pillow_resize(np.ascontiguousarray(frame[..., ::-1]), out_height, out_width, name)
    np.testing.assert_array_equal(CpuPreprocessor(spec).pixels(frame), expected)


@examples(60)
@given(sides, sides, sides, sides, st.sampled_from(FILTERS), seeds)
def test_the_coefficient_tables_are_pillows(height, width, out_height, out_width, name, seed):
    frame = random_frame(height, width, seed)
    expected = pillow_resize(frame, out_height, out_width, name)
    np.testing.assert_array_equal(resample(frame, (out_height, out_width), name), expected)


@examples(60)
@given(st.integers(8, 200), st.integers(8, 200), st.integers(8, 64), st.data())
def test_shortest_side_and_center_crop_follow_torchvision(height, width, short, data):
    crop = data.draw(st.integers(1, short))
    frame = random_frame(height, width, height * width)
    spec = PreprocessSpec(Resize("shortest-side+center-crop", short), crop=(crop, crop))
    if height <= width:
        size = (short, int(short * width / height))
    else:
        size = (int(short * height / width), short)
    resized = pillow_resize(np.ascontiguousarray(frame[..., ::-1]), *size, "bilinear")
    expected = torchvision_center_crop(resized, crop, crop)
    np.testing.assert_array_equal(CpuPreprocessor(spec).pixels(frame), expected)


@examples(60)
@given(sides, sides, st.integers(4, 80), st.integers(4, 80), st.integers(0, 255))
def test_letterbox_keeps_the_aspect_and_fills_the_rest(height, width, box_h, box_w, fill):
    frame = random_frame(height, width, 7)
    spec = PreprocessSpec(Resize("letterbox", (box_h, box_w), fill=fill))
    pixels = CpuPreprocessor(spec).pixels(frame)
    plan = geometry(spec, height, width)
    top, left = plan.offset
    inner_h, inner_w = plan.resized
    inside = pixels[top : top + inner_h, left : left + inner_w]
    expected = pillow_resize(np.ascontiguousarray(frame[..., ::-1]), inner_h, inner_w, "bilinear")
    np.testing.assert_array_equal(inside, expected)
    outside = np.ones(pixels.shape[:2], bool)
    outside[top : top + inner_h, left : left + inner_w] = False
    assert (pixels[outside] == fill).all()
    assert inner_h == box_h or inner_w == box_w
    assert pixels.shape == (box_h, box_w, 3)


@examples(40)
@given(sides, sides, st.integers(8, 60), st.data())
def test_a_crop_of_a_letterbox_is_the_crop_of_the_whole(height, width, box, data):
    crop = (data.draw(st.integers(1, box)), data.draw(st.integers(1, box)))
    frame = random_frame(height, width, 3)
    whole = CpuPreprocessor(PreprocessSpec(Resize("letterbox", (box, box)))).pixels(frame)
    cropped = PreprocessSpec(Resize("letterbox", (box, box)), crop=crop)
    expected = torchvision_center_crop(whole, *crop)
    np.testing.assert_array_equal(CpuPreprocessor(cropped).pixels(frame), expected)


def test_without_antialiasing_the_pixels_are_opencvs_up_to_rounding():
    cv2 = pytest.importorskip("cv2")
    frame = random_frame(240, 320, 1)
    spec = PreprocessSpec(Resize("squash", (96, 128), antialias=False), color="bgr")
    ours = CpuPreprocessor(spec).pixels(frame).astype(int)
    theirs = cv2.resize(frame, (128, 96), interpolation=cv2.INTER_LINEAR).astype(int)
    assert np.abs(ours - theirs).max() <= 1


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("color", ["rgb", "bgr"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_tensor_is_the_normalised_pixels(layout, color, dtype):
    frame = random_frame(50, 70, 5)
    mean, std = (10.0, 20.5, 30.0), (2.0, 3.0, 4.5)
    spec = PreprocessSpec(
        Resize("squash", (32, 40)), color=color, mean=mean, std=std, layout=layout, dtype=dtype
    )
    preprocess = CpuPreprocessor(spec)
    tensor = preprocess([frame, frame[:, ::-1]])
    assert tensor.dtype == np.dtype(dtype)
    assert tensor.flags.c_contiguous
    pixels = preprocess.pixels(frame).astype(np.float64)
    expected = ((pixels - mean) / std).astype(dtype)
    if layout == "nchw":
        expected = expected.transpose(2, 0, 1)
    np.testing.assert_array_equal(tensor[0], expected)
    assert tensor.shape == (2, *spec.tensor_shape)


def test_a_frame_that_is_a_view_gives_the_same_as_its_copy():
    frame = random_frame(80, 90, 2)
    view = frame[5:60, 10:70]
    preprocess = CpuPreprocessor(presets()["torchvision"])
    np.testing.assert_array_equal(preprocess([view]), preprocess([view.copy()]))


@pytest.mark.parametrize(
    ("preset", "height", "width"),
    [
        ("torchvision", 1, 60_000),
        ("torchvision", 60_000, 1),
        ("clip", 1, 60_000),
        ("keras-tf", 400_000_000, 2),
    ],
)
def test_a_strip_is_refused_before_it_takes_memory(preset: str, height: int, width: int):
    # A broadcast frame holds one byte, whatever its shape.
    strip = np.broadcast_to(np.uint8(7), (height, width, 3))
    with pytest.raises(ImageError, match=rf"{width} x {height} pixels .* less of a strip"):
        CpuPreprocessor(presets()[preset])([strip])


@given(st.sampled_from(sorted(presets())), st.integers(1, 20_000), st.integers(1, 20_000))
def test_no_pass_of_resampling_goes_beyond_the_limit(preset, height, width):
    try:
        plan = geometry(presets()[preset], height, width)
    except ImageError:
        assert max(height, width) > 200 * min(height, width)
    else:
        assert max(height, plan.resized[0]) * plan.resized[1] <= MAX_RESIZED_PIXELS


def test_presets_match_torchvisions_published_numbers():
    spec = presets()["torchvision"]
    np.testing.assert_allclose(np.array(spec.mean) / 255, [0.485, 0.456, 0.406], atol=1e-9)
    np.testing.assert_allclose(np.array(spec.std) / 255, [0.229, 0.224, 0.225], atol=1e-9)
    assert spec.output_size == (224, 224)


@pytest.mark.parametrize(
    ("height", "width", "short"),
    [(256, 256, 292), (224, 224, 256), (160, 160, 182), (384, 384, 438), (240, 320, 320)],
)
def test_a_preset_fits_the_models_size(height, width, short):
    spec = with_input(presets()["torchvision"], height=height, width=width, layout="nchw")
    assert spec.output_size == (height, width)
    assert spec.resize.size == short


def test_toml_form(tmp_path: Path):
    path = tmp_path / "squash128.toml"
    path.write_text(
        '[preprocess]\ncolor = "rgb"\n'
        'resize = { mode = "squash", size = [224, 224], filter = "bilinear" }\n'
        'mean = [128, 128, 128]\nstd = [128, 128, 128]\nlayout = "nchw"\n'
    )
    spec = load_preprocess(path)
    assert spec.tensor_shape == (3, 224, 224)
    assert spec.mean == (128.0, 128.0, 128.0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[preprocess", "not TOML"),
        ("a = 1", "[preprocess]"),
        ("[preprocess]", "resize"),
        ('[preprocess]\nresize = {mode="stretch", size=[1, 1]}', "stretch"),
        ('[preprocess]\nresize = {mode="squash", size=7}', "[height, width]"),
        ('[preprocess]\nresize = {mode="squash", size=[0, 7]}', ">= 1"),
        ('[preprocess]\nresize = {mode="squash", size=[7, 7]}\nstd=[0,1,1]', "> 1e-06"),
        ('[preprocess]\nresize = {mode="squash", size=[7, 7]}\nstd=[1e-320,1,1]', "> 1e-06"),
        (
            '[preprocess]\nresize = {mode="squash", size=[7, 7]}\nstd=[1e-3,1,1]\ndtype="float16"',
            "float16",
        ),
        ('[preprocess]\nresize = {mode="squash", size=[7, 7]}\nmean=[nan,1,1]', "1024"),
        ("[preprocess]\nnoise = " + "[" * 5000, "not TOML"),
        ("[preprocess]\nnoise = " + "7" * 5000, "not TOML"),
        ('[preprocess]\nresize = {mode="squash", size=[7, 7]}\nnoise=1', "noise"),
        ('[preprocess]\nresize = {mode="shortest-side+center-crop", size=8}', "crop"),
        ('[preprocess]\nresize = {mode="squash", size=[7, 7]}\ncrop=[8, 7]', "larger"),
    ],
)
def test_wrong_toml_says_what_is_wrong(text, said):
    with pytest.raises(PreprocessError, match="preprocess") as caught:
        parse_preprocess(text)
    assert said in str(caught.value)


SQUASH = 'resize = { mode = "squash", size = [7, 7] }'


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("maen = [1, 1, 1]", "unknown field 'maen'; did you mean 'mean'?"),
        ('colour = "rgb"', "unknown field 'colour'; did you mean 'color'?"),
        ("interpolation = 1", "there are resize, crop, color, mean, std, layout, dtype"),
        ('mode = "squash"', "unknown field 'mode'; it belongs in the table resize"),
        ("mean = 0.5", "mean = 0.5 is wrong; it takes three numbers >= -1024 and <= 1024"),
        ("mean = [1, 1]", "mean = [1, 1] is wrong; it takes three numbers"),
        ('std = ["1", 1, 1]', "it takes three numbers > 1e-06 and <= 1024, in units of 0..255"),
        ('color = "RGB"', 'it takes "rgb" or "bgr"; did you mean \'rgb\'?'),
        ('layout = "hwc"', 'it takes "nchw" or "nhwc"; did you mean \'nhwc\'?'),
        ("dtype = 16", 'dtype = 16 is wrong; it takes "float32", "float16" or "uint8"'),
        ("crop = 224", "crop = 224 is wrong; it takes [height, width]"),
        ('"resize.mode" = "squash"', "unknown field 'resize.mode'; did you mean 'resize'?"),
        (f'color = "{"x" * 5000}"', "..."),
        ('"\\u001b[31m" = 1', "'\\x1b[31m'"),
    ],
)
def test_a_wrong_key_or_value_names_what_is_allowed(line: str, said: str):
    with pytest.raises(PreprocessError) as caught:
        parse_preprocess(f"[preprocess]\n{SQUASH}\n{line}\n")
    assert said in str(caught.value)
    assert "docs/preprocessing.md" in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("{}", 'resize.mode is missing; it takes "squash", "shortest-side+center-crop" or'),
        ('{ mode = "squash" }', "resize.size is missing; it takes [height, width]"),
        ('"squash"', "resize = 'squash' is wrong; it takes a table such as {"),
        ('{ mode = "sqash", size = [7, 7] }', "did you mean 'squash'?"),
        ('{ mode = "squash", size = [7, 7], antialais = true }', "did you mean 'antialias'?"),
        ('{ mode = "squash", size = [7, 7], antialias = 1 }', "it takes true or false"),
        ('{ mode = "squash", size = [7, 7], fill = 300 }', "whole number >= 0 and <= 255"),
        ('{ mode = "squash", size = [7, 7], mean = 1 }', "in resize; it belongs in [preprocess]"),
        ('{ mode = "squash", size = [7, 7], filter = "lanczos3" }', "did you mean 'lanczos'?"),
        ('{ mode = "squash", size = [7.5, 7] }', "resize.size = [7.5, 7] is wrong"),
    ],
)
def test_a_wrong_resize_names_what_is_allowed(table: str, said: str):
    with pytest.raises(PreprocessError) as caught:
        parse_preprocess(f"[preprocess]\nresize = {table}\n")
    assert said in str(caught.value)


def test_a_file_with_a_byte_order_mark(tmp_path: Path):
    path = tmp_path / "p.toml"
    path.write_bytes(b"\xef\xbb\xbf" + f"[preprocess]\n{SQUASH}\n".encode())
    assert load_preprocess(path).output_size == (7, 7)


def test_the_document_has_every_key_preset_and_default():
    page = (Path(__file__).parents[3] / "docs" / "preprocessing.md").read_text()
    for key in TAKES:
        assert f"| `{key}` |" in page
        for choice in re.findall(r'"[^"]+"', TAKES[key]) if TAKES[key][0] == '"' else ():
            assert f"`{choice}`" in page
    for preset, spec in presets().items():
        row = next(line for line in page.splitlines() if line.startswith(f"| `{preset}` |"))
        assert spec.resize.filter in row
        assert spec.color.upper() in row
    keys = {*PreprocessSpec.__struct_fields__, *(f"resize.{k}" for k in Resize.__struct_fields__)}
    assert keys == set(TAKES)
    spec = parse_preprocess(f"[preprocess]\n{SQUASH}\n")
    defaults = {"mean": "[0, 0, 0]", "std": "[1, 1, 1]", "resize.fill": "114"}
    defaults |= {"layout": '"nchw"', "dtype": '"float32"', "color": '"rgb"'}
    for key, text in defaults.items():
        row = next(line for line in page.splitlines() if line.startswith(f"| `{key}` |"))
        assert f"`{text}`" in row
    assert (spec.mean, spec.std, spec.resize.fill) == ((0,) * 3, (1,) * 3, 114)
    assert (spec.layout, spec.dtype, spec.color) == ("nchw", "float32", "rgb")


@given(st.text(max_size=200))
def test_any_text_is_a_spec_or_an_error_of_ours(text):
    try:
        assert isinstance(parse_preprocess(text), PreprocessSpec)
    except PreprocessError as error:
        assert "\n" not in str(error)


def test_an_unknown_preset_names_the_known_ones():
    with pytest.raises(PreprocessError, match="torchvision"):
        load_preprocess("torchvison")


@pytest.mark.parametrize("path", ["a" * 5000, "null\0character", "/dev/null/spec.toml"])
def test_a_path_that_can_not_be_looked_at(path: str):
    with pytest.raises(PreprocessError):
        load_preprocess(path)
