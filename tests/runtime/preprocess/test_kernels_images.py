"""What was built of the kernels: not stale, complete, and the right file for each GPU."""

from __future__ import annotations

import hashlib
import io
import shutil
import zipfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_fg.errors import BackendError, BackendUnavailableError, UsageError
from edge_fg.preprocess import kernels
from edge_fg.preprocess.launch import KERNELS
from edge_fg_tools.kernels import build, toolkits

DRIVERS = [12000, 12020, 12060, 12080, 13000, 13020]


@pytest.fixture(scope="module")
def record() -> kernels.Record:
    return kernels.read_record()


def test_what_is_shipped_was_built_of_these_sources(record):
    assert record.source_digest == kernels.source_digest(), (
        "the kernels changed since they were built: run `python -m edge_fg_tools.kernels.build`"
    )


def test_the_digest_covers_every_source_that_the_kernels_include():
    included = {"resample.cu"}
    for name in kernels.SOURCES:
        for line in (kernels.FOLDER / name).read_text().splitlines():
            if line.startswith('#include "'):
                included.add(line.split('"')[1])
    assert included == set(kernels.SOURCES)


def test_changing_a_source_changes_the_digest(tmp_path: Path):
    for name in kernels.SOURCES:
        shutil.copy(kernels.FOLDER / name, tmp_path / name)
    assert kernels.source_digest(tmp_path) == kernels.source_digest()
    with (tmp_path / "sample.h").open("a") as file:
        file.write(" ")
    assert kernels.source_digest(tmp_path) != kernels.source_digest()


def test_every_image_is_in_the_archive_as_recorded(record):
    content = (kernels.FOLDER / kernels.ARCHIVE).read_bytes()
    assert len(content) < 1 << 20
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert set(archive.namelist()) == set(record.images)
        for name, image in record.images.items():
            data = archive.read(name)
            assert len(data) == image.bytes
            assert hashlib.sha256(data).hexdigest() == image.sha256
            for kernel in KERNELS:
                assert kernel.encode() in data
            # ELF for NVIDIA's machine (190), or text.
            assert data[:4] == (b"//\n/" if image.ptx else b"\x7fELF")
            if not image.ptx:
                assert int.from_bytes(data[18:20], "little") == 190


def test_no_kernel_spills_or_takes_more_registers_than_a_block_may(record):
    for name, image in record.images.items():
        if image.ptx:
            continue
        assert set(image.kernels) == set(KERNELS), name
        for usage in image.kernels.values():
            assert usage.spill_stores == usage.spill_loads == usage.stack_bytes == 0, name
            assert usage.registers <= 64, name
            assert usage.shared_bytes <= 10240, name


@pytest.mark.parametrize(
    ("capability", "driver", "expected"),
    [
        ("7.5", 12020, "cuda12/sm_75.cubin"),
        ("8.0", 13000, "cuda12/sm_80.cubin"),
        ("8.7", 12060, "cuda12/sm_87.cubin"),  # Orin, JetPack 6
        ("8.9", 12080, "cuda12/sm_89.cubin"),
        ("9.0", 13000, "cuda12/sm_90.cubin"),
        ("10.0", 13000, "cuda13/sm_100.cubin"),
        ("10.0", 12080, "cuda12/compute_90.ptx"),  # its driver loads nothing of CUDA 13
        ("11.0", 13000, "cuda13/sm_110.cubin"),  # Thor, JetPack 7
        ("12.0", 12080, "cuda12/compute_90.ptx"),
        ("12.0", 13000, "cuda13/sm_120.cubin"),
        ("12.1", 13000, "cuda13/sm_121.cubin"),
        ("7.2", 12020, "cuda12/sm_72.cubin"),
        # Not made for these: from the same family where that is allowed, or translated.
        ("8.8", 13000, "cuda12/compute_72.ptx"),
        ("12.3", 13000, "cuda13/sm_121.cubin"),
        ("14.0", 14000, "cuda13/compute_120.ptx"),
    ],
)
def test_each_gpu_gets_its_image(record, capability, driver, expected):
    assert kernels.choose_image(record, capability, driver) == expected
    image = kernels.load_image(capability, driver)
    assert image.name == expected
    known = record.images[expected]
    assert hashlib.sha256(image.data[: known.bytes]).hexdigest() == known.sha256
    assert image.data[known.bytes :] == (b"\0" if known.ptx else b"")


@given(st.integers(7, 15), st.integers(0, 9), st.sampled_from(DRIVERS))
def test_a_choice_never_breaks_nvidias_rules(major, minor, driver):
    record = kernels.read_record()
    gpu = (major, minor)
    try:
        image = record.images[kernels.choose_image(record, f"{major}.{minor}", driver)]
    except BackendUnavailableError:
        assert gpu < (7, 2) or driver < 12020
        return
    assert image.capability <= gpu
    if image.ptx:
        assert image.toolkit <= driver
    else:
        assert image.toolkit // 1000 <= driver // 1000
        assert image.capability[0] == major


@pytest.mark.parametrize(("capability", "driver"), [("7.0", 13000), ("8.7", 11040), ("6.1", 12060)])
def test_a_gpu_or_driver_that_is_too_old_is_told_so(capability, driver):
    told = rf"{capability}.*CUDA {driver // 1000}\.{driver % 1000 // 10}.*7\.2 or newer.*CUDA 12"
    with pytest.raises(BackendUnavailableError, match=told):
        kernels.load_image(capability, driver)


@pytest.mark.parametrize("capability", ["", "eight", "8", "8.7a"])
def test_a_capability_that_is_none_is_refused(capability):
    with pytest.raises(BackendUnavailableError, match=r"not like 8\.7"):
        kernels.load_image(capability, 13000)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in (kernels.ARCHIVE, kernels.RECORD):
        shutil.copy(kernels.FOLDER / name, tmp_path / name)
    monkeypatch.setattr(kernels, "FOLDER", tmp_path)
    return tmp_path


def test_a_damaged_installation_is_told_so(installed: Path, record):
    archive = installed / kernels.ARCHIVE
    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BackendError, match="install edge-fg again"):
        kernels.load_image("8.7", 12060)
    with zipfile.ZipFile(archive, "w") as changed:
        changed.writestr("cuda12/sm_87.cubin", b"something else")
    with pytest.raises(BackendError, match="another SHA-256"):
        kernels.load_image("8.7", 12060)
    archive.unlink()
    with pytest.raises(BackendError, match=kernels.ARCHIVE):
        kernels.load_image("8.7", 12060)
    (installed / kernels.RECORD).write_text("{")
    with pytest.raises(BackendError, match=kernels.RECORD):
        kernels.read_record()


REPORT = """
ptxas info    : Compiling entry function 'second' for 'sm_75'
ptxas info    : Function properties for second
    16 bytes stack frame, 4 bytes spill stores, 8 bytes spill loads
ptxas info    : Used 36 registers, used 0 barriers, 384 bytes cmem[0]
ptxas info    : Compiling entry function 'first' for 'sm_75'
ptxas info    : Function properties for first
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 49 registers, used 1 barriers, 8192 bytes smem, 376 bytes cmem[0]
"""


def test_the_assemblers_report_is_read():
    assert toolkits.usage_in(REPORT) == {
        "second": kernels.Usage(36, 4, 8, 16, 0),
        "first": kernels.Usage(49, 0, 0, 0, 8192),
    }


class SpillingToolkit:
    """A compiler whose kernels spill."""

    description = "a compiler"

    def __init__(self, version: int) -> None:
        self.version = version

    def cubin(self, architecture: int):
        return b"code", {"kernel": kernels.Usage(255, 0, 4, 0, 0)}

    def ptx(self, architecture: int) -> bytes:
        return b"text"


def test_what_spills_is_not_built():
    with pytest.raises(UsageError, match="kernel spills registers on sm_72"):
        build.build(SpillingToolkit(12020), SpillingToolkit(13000))
    with pytest.raises(UsageError, match="not of CUDA 12"):
        build.build(SpillingToolkit(13000), SpillingToolkit(13000))


def test_a_build_without_compilers_says_what_is_missing(capfd, tmp_path: Path):
    assert build.main(["--nvrtc", str(tmp_path / "no.so")]) == 2
    assert "can't load NVRTC" in capfd.readouterr().err


def test_the_documentation_holds_the_table_of_what_was_built(record, repository: Path, capfd):
    assert build.main(["--table"]) == 0
    table = capfd.readouterr().out
    assert table == build.usage_table(record)
    document = repository / "docs" / "kernels.md"
    assert table in document.read_text()


@pytest.mark.slow
def test_the_sources_compile_anew_without_spills_for_every_architecture():
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("no nvcc to compile the kernels with")
    toolkit = toolkits.NvccToolkit(nvcc)
    architectures = toolkit.architectures()
    assert architectures
    for architecture in architectures:
        data, used = toolkit.cubin(architecture)
        assert data[:4] == b"\x7fELF"
        assert set(used) == set(KERNELS), architecture
        for usage in used.values():
            assert usage.spill_stores == usage.spill_loads == 0, (architecture, usage)


def test_the_record_names_the_compilers(record):
    assert all(str(image.toolkit) in record.toolkits for image in record.images.values())
    assert any(version.startswith("12") for version in record.toolkits)
    assert any(version.startswith("13") for version in record.toolkits)
    again = msgspec.json.decode(msgspec.json.encode(record), type=kernels.Record)
    assert again == record
